"""A reader that learns afresh from what was selected, and from the rest: `train_reader`, `reader_agreement`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_attn.attribution.controls import untrained
from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import NoMitigation
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.losses import classification_loss
from lightning_attn.ops.randomness import seeded
from lightning_attn.types import Batch

Part = Literal["selection", "rest"]


def train_reader(
    network: AttentionNetwork,
    black_box: AttentionNetwork,
    training: Sequence[Batch],
    part: Part = "selection",
    epochs: int = 4,
    rate: float = 1e-3,
    seed: int = 0,
) -> AttentionNetwork:
    """A new network of the same kind that learns what the black box says, from the selected part alone or the rest.

    The network's own reader has grown up together with the selector, and the black box has never met a selection: the
    one may know a code, the other may be shown what it does not know. This one has met selections and nothing else, and
    had no say in them. Source: the approximator of AIL (Liang et al., KDD 2020, https://arxiv.org/abs/2006.16234).

    Args:
        network: Built network whose attention is hard; stays as it is.
        black_box: The network that is explained.
        training: Batches of training examples, padded.
        part: What the reader sees: the ``selection``, or the ``rest``.
        epochs: Passes over the batches, at least 1.
        rate: Learning rate of AdamW.
        seed: Of the reader's start and the order of the batches; the global random state is left alone.

    Returns:
        The trained copy, in evaluation mode.

    Raises:
        InputError: There are no batches, or a number is out of its range; or the network cannot be drawn anew.
    """
    if not training or epochs < 1 or rate <= 0:
        raise InputError(
            f"train_reader needs at least one batch and one epoch and a positive rate, got {len(training)}, {epochs} "
            f"and {rate}."
        )
    lessons = [(batch, part_weights(network, batch, part), _answers(black_box, batch)) for batch in training]
    reader = untrained(network, seed)
    reader.set_mitigation(NoMitigation())
    reader.requires_grad_(True).train()
    optimizer = torch.optim.AdamW([value for module in reader.value_path() for value in module.parameters()], lr=rate)
    with torch.inference_mode(False), torch.enable_grad(), seeded(seed, training[0].device):
        for _ in range(epochs):
            for number in torch.randperm(len(lessons)).tolist():
                batch, weights, answers = lessons[number]
                loss = classification_loss(_read(reader, batch, weights), answers, reader.schema)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return reader.requires_grad_(False).eval()


def reader_agreement(
    reader: AttentionNetwork,
    network: AttentionNetwork,
    black_box: AttentionNetwork,
    batch: Batch,
    part: Part = "selection",
) -> Tensor:
    """Whether a reader says of the part what the black box says of the whole, 0 or 1, shape ``(B,)``.

    Args:
        reader: From :func:`train_reader`.
        network: See :func:`train_reader`.
        black_box: See :func:`train_reader`.
        batch: B examples, padded, that the reader has not learned from.
        part: That of the reader.
    """
    weights = part_weights(network, batch, part)
    with torch.no_grad(), evaluating(reader):
        said = _read(reader, batch, weights).argmax(dim=-1)
    return (said == _answers(black_box, batch).argmax(dim=-1)).float()


def part_weights(network: AttentionNetwork, batch: Batch, part: Part) -> Tensor:
    """Even weights on the selection, or on what was not selected; all 0 where that is nothing; shape ``(B, L)``."""
    with torch.no_grad(), evaluating(network):
        output = network(network.read_query(batch))
        inner = network.attendable(batch).inner
    kept = inner & ((output.attention > 0) == (part == "selection"))
    weights: Tensor = kept / kept.sum(dim=-1, keepdim=True).clamp(min=1)
    return weights


def _read(reader: AttentionNetwork, batch: Batch, weights: Tensor) -> Tensor:
    return reader(batch, attention=weights).logits  # type: ignore[no-any-return]


def _answers(black_box: AttentionNetwork, batch: Batch) -> Tensor:
    with torch.no_grad(), evaluating(black_box):
        return black_box.schema.probabilities(black_box(batch.replace(query_vector=None)).logits.float())
