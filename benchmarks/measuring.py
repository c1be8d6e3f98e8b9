"""What benchmarks measure of trained networks, example by example: perturbed texts, and what travels in the mask."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.fitting import trainer_of
from lightning_attn.callbacks import ShortcutProbe
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.data.encoded import SplitDataset
from lightning_attn.metrics import Settings, measure
from lightning_attn.metrics.functional.evaluators import Training
from lightning_attn.metrics.functional.leakage import bits_gained, fano_bits
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.randomness import mix
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch

Array = NDArray[np.float64]
Rows = dict[str, Array]

ERASURE = ("comprehensiveness", "sufficiency")


def device() -> torch.device:
    """Where Lightning trains."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def order_of(data: AttentionDataModule, split: str) -> NDArray[np.int64]:
    """Rows of a split in an order that is always the same and has nothing to do with their labels."""
    return order_at(len(data.dataset(split)))


def order_at(count: int) -> NDArray[np.int64]:
    """So many numbers, from 0, in an order that is always the same."""
    return mix(torch.arange(count)).argsort().numpy()


def batches_of(data: AttentionDataModule, split: str, count: int) -> list[Batch]:
    """The first examples in that order, in batches of about equal lengths."""
    return batches_at(data.dataset(split), order_of(data, split)[:count])


def batches_at(dataset: SplitDataset, rows: NDArray[np.int64], size: int = 32) -> list[Batch]:
    """The examples at ``rows``, in batches of about equal lengths."""
    rows = rows[np.argsort(dataset.lengths[rows], kind="stable")]
    return [dataset[rows[first : first + size].tolist()].padded().to(device()) for first in range(0, len(rows), size)]


def in_order(parts: Mapping[str, list[Tensor]], index: list[Tensor], order: NDArray[np.int64]) -> Rows:
    """Figures of batches as one array a name, in the order of :func:`order_of`."""
    place = {int(row): number for number, row in enumerate(torch.cat(index).tolist())}
    chosen = [place[row] for row in order.tolist() if row in place]
    return {name: torch.cat(several).double().cpu().numpy()[chosen] for name, several in parts.items()}


def perturbed(
    network: AttentionNetwork,
    data: AttentionDataModule,
    split: str,
    count: int,
    names: tuple[str, ...],
    how: Perturbation,
) -> tuple[Rows, list[Tensor]]:
    """Measures of the first examples, by name; and the attention to each batch of them."""
    parts: dict[str, list[Tensor]] = {}
    index, attention = [], []
    for batch in batches_of(data, split, count):
        found, output = measure(network, batch, names, Settings(perturbation=how))
        for name, values in found.items():
            parts.setdefault(name.split("/")[1], []).append(values)
        index.append(batch.index)
        attention.append(output.attention)
    rows = in_order(parts, index, order_of(data, split))
    for name in (*ERASURE, "flip_fraction"):
        if f"{name}_random" in rows:
            rows[f"{name}_gain"] = rows[name] - rows.pop(f"{name}_random")
    return {name: values for name, values in rows.items() if not np.isnan(values).all()}, attention


def probed(
    network: AttentionNetwork,
    data: AttentionDataModule,
    metrics: Sequence[str],
    train_examples: int = 2000,
    training: Training | None = None,
) -> tuple[Rows, dict[str, float]]:
    """What the whole test split says of accuracy and of label information in the mask: by example, and as figures.

    Arguments are those of :class:`ShortcutProbe`.
    """
    probe = ShortcutProbe(max_examples=None, metrics=metrics, train_examples=train_examples, training=training)
    with tempfile.TemporaryDirectory() as folder:
        logged = trainer_of(1, folder, [probe]).test(AttentionClassifier(network), data, verbose=False)[0]
    network.to(device())
    figures = {name.split("/", 2)[2]: float(value) for name, value in logged.items() if name.count("/") == 2}
    figures["accuracy"] = float(logged["test/accuracy"])
    rows, order = probe.rows, order_of(data, "test")
    target = rows["target"].astype(np.int64)
    figures["accuracy_fano_bits"] = fano_bits(np.bincount(target) / len(target), figures["accuracy"])
    found = {"leaked_bits": rows["leaked"]} if "leaked" in rows else {}
    if "head" in rows:
        found["head_bits"] = bits_gained(rows["head"], target)
    if "evalx" in rows:
        # less that of masks of other texts, which cannot encode anything
        known, other = rows["judged"] - rows["evalx"], rows["control"] - rows["other"]
        found["encoding_gain"] = (known - other) / math.log(2)
        found["evalx_accuracy"] = rows["evalx_right"]
    found["accuracy"] = correct(network, data, "test")
    return {name: values[order] for name, values in found.items()}, figures


def correct(network: AttentionNetwork, data: AttentionDataModule, split: str) -> Array:
    """1 where the class of an example is predicted, else 0, in the order of the rows of the split."""
    dataset = data.dataset(split)
    found = np.empty(len(dataset))
    for rows in np.array_split(np.argsort(dataset.lengths, kind="stable"), math.ceil(len(dataset) / 64)):
        batch = dataset[rows.tolist()].to(device())
        with torch.no_grad():
            found[rows] = (network(batch).logits.argmax(dim=-1) == batch.target).double().cpu().numpy()
    return found
