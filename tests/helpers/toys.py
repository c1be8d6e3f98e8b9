"""Tiny seeded networks and batches that the tests share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_attn.attention import AdditiveAttention
from lightning_attn.encoders import BiLSTM, TokenMLP
from lightning_attn.encoders.base import Encoder
from lightning_attn.networks import MLPClassifier, PooledNetwork
from lightning_attn.types import Batch, DataSchema

VOCABULARY = 30


def toy_batch(
    lengths: Sequence[int] = (7, 1, 12, 4),
    seed: int = 0,
    special: bool = False,
    evidence: bool = False,
    classes: int = 2,
    multi_label: bool = False,
    pad_to: int | None = None,
) -> Batch:
    """Random token ids from 2 on; ``special`` makes the first and last position of every text special."""
    generator = torch.Generator().manual_seed(seed)
    width = max(pad_to or 0, *lengths)
    count = torch.tensor(lengths)
    valid = torch.arange(width) < count[:, None]
    inputs = torch.stack([torch.randint(2, VOCABULARY, (width,), generator=generator) for _ in lengths])
    ends = torch.zeros_like(valid)
    if special:
        ends = valid & ((torch.arange(width) == 0) | (torch.arange(width) == count[:, None] - 1))
    marks = torch.stack([torch.rand(width, generator=generator) for _ in lengths]).round()
    if multi_label:
        target = torch.randint(0, 2, (len(lengths), classes), generator=generator).float()
    else:
        target = torch.randint(0, classes, (len(lengths),), generator=generator)
    return Batch(
        inputs=inputs.masked_fill(~valid, 0),
        valid=valid,
        special=ends,
        target=target,
        index=torch.arange(len(lengths)) + 100 * seed,
        evidence=marks.masked_fill(~valid, torch.nan) if evidence else None,
    )


def toy_network(
    seed: int = 0,
    classes: int = 2,
    multi_label: bool = False,
    encoder: Encoder | None = None,
    sharpness: float = 3.0,
    attend_special: bool = False,
) -> PooledNetwork:
    """An untrained network in evaluation mode; ``sharpness`` scales its weights so that outputs differ clearly."""
    torch.manual_seed(seed)
    network = PooledNetwork(
        encoder or BiLSTM(embedding_size=6, hidden_size=5), AdditiveAttention(size=4, attend_special=attend_special)
    )
    network.build(DataSchema(num_classes=classes, multi_label=multi_label, vocabulary_size=VOCABULARY))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(sharpness)
    return network.eval()


def alone(batch: Batch, row: int) -> Batch:
    """One example without any padding."""
    length = int(batch.valid[row].sum())
    single = batch.select(torch.tensor([row]))
    evidence = None if single.evidence is None else single.evidence[:, :length]
    return single.replace(
        inputs=single.inputs[:, :length],
        valid=single.valid[:, :length],
        special=single.special[:, :length],
        evidence=evidence,
    )


class Nonlinear(PooledNetwork):
    """Somebody's own way to classify, which the one product does not know."""

    def classify(self, values, attention, batch):
        """Logits of the squared sum."""
        return self.head(torch.einsum("bl,blh->bh", attention, values).square())


CLASSIFIERS = {
    "linear": lambda: PooledNetwork(TokenMLP(6, 5)),
    "mlp": lambda: PooledNetwork(TokenMLP(6, 5), head=MLPClassifier(8, dropout=0.5)),
    "own": lambda: Nonlinear(TokenMLP(6, 5)),
}


def toy_mlp(
    kind: str, classes: int, multi_label: bool = False, seed: int = 0, attend_special: bool = False
) -> PooledNetwork:
    """An untrained network whose outputs differ clearly."""
    torch.manual_seed(seed)
    network = CLASSIFIERS[kind]()
    network.attention.attend_special = attend_special
    network.build(DataSchema(num_classes=classes, multi_label=multi_label, vocabulary_size=VOCABULARY))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network.eval()
