"""One cell: train selector and reader, or none at all, and measure what was selected on validation and test data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import seed_everything
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.cells import Cell
from benchmarks.fitting import fit_best
from benchmarks.measuring import batches_of
from benchmarks.reordered import Reordered
from benchmarks.selection.arms import ARMS, Sizes
from benchmarks.selection.baselines import BASELINES, GREEDY, baseline_figures
from benchmarks.selection.data import SETTINGS, Setting, black_box_of, data_of
from lightning_attn.attention.selection import TopKSelection
from lightning_attn.encoders import BiLSTM
from lightning_attn.metrics.fresh_reader import Part, reader_agreement, train_reader
from lightning_attn.metrics.selection import selection_figures, selection_rows
from lightning_attn.metrics.shortcut import Rows, distinct_rows
from lightning_attn.mitigations import NoMitigation
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.selector import PictureSelectorNetwork, SelectorNetwork
from lightning_attn.optim import ParameterRule
from lightning_attn.tasks import BlackBoxExplainer

DRAWS = 5  # random selections per test example
MASKS = 2000  # training examples whose masks are probed
FRESH = 4000  # training examples that a fresh reader learns from
FRESH_EPOCHS = 4
FRESH_SEEDS = 5  # of each arm: it is as dear as the training


class SelectorRate(ParameterRule):
    """The selector learns at a multiple of the reader's rate."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @override
    def settings(self, network: AttentionNetwork) -> dict[nn.Parameter, dict[str, float]]:
        return {parameter: {"rate": self.rate} for parameter in network.scorer_parameters()}


def network_of(setting: Setting) -> AttentionNetwork:
    """Selector and reader."""
    if setting.pictures:
        return PictureSelectorNetwork(attention=TopKSelection(setting.k))
    embedding, hidden = setting.size
    return SelectorNetwork(
        BiLSTM(embedding, hidden, "contextual"),
        BiLSTM(embedding, hidden, "contextual"),
        TopKSelection(setting.k),
    )


def compute(cell: Cell, root: str, work: str) -> dict[str, Any]:
    """Figures of a cell by name, ``val/...`` and ``test/...``; for baselines those of test alone."""
    setting = SETTINGS[cell["data"]]
    black_box = black_box_of(cell["data"], root, work)
    data = data_of(cell["data"], cell["seed"], root, work)
    if cell["arm"] in BASELINES:
        count = setting.greedy if cell["arm"] == GREEDY else len(data.dataset("test"))
        figures = baseline_figures(cell["arm"], black_box, batches_of(data, "test", count), setting, cell["seed"])
        return {f"test/{name}": value for name, value in figures.items()}
    network = trained(cell, setting, data, black_box)
    figures = {}
    training = _rows(network, black_box, data, "train", MASKS, draws=1)
    for split in ("val", "test"):
        rows = _rows(network, black_box, data, split, len(data.dataset(split)), DRAWS if split == "test" else 1)
        values, _ = selection_figures(rows, training)
        figures |= {f"{split}/{name}": value for name, value in values.items()}
    if cell["seed"] < FRESH_SEEDS:
        figures |= fresh_figures(network, black_box, data, cell["seed"])
    return figures


def trained(cell: Cell, setting: Setting, data: Reordered, black_box: AttentionNetwork) -> AttentionNetwork:
    """The network of the epoch with the best fidelity on validation data, of the last phase; in evaluation mode."""
    arm = ARMS[cell["arm"]]
    seed_everything(cell["seed"], verbose=False)
    sizes = Sizes(setting.k, setting.epochs // 2, setting.warmup, cell["seed"])
    module = BlackBoxExplainer(
        network_of(setting),
        black_box,
        arm.mitigation(sizes),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=setting.rate, weight_decay=1e-5),
        parameter_rules=[] if arm.selector_rate == 1 else [SelectorRate(arm.selector_rate)],
    )
    with tempfile.TemporaryDirectory() as folder:
        fit_best(module, data, setting.epochs * arm.longer, folder, monitor=module.monitor, mode=module.mode)
    network = module.network
    network.set_mitigation(NoMitigation())
    return network.requires_grad_(True).eval()


def fresh_figures(
    network: AttentionNetwork, black_box: AttentionNetwork, data: Reordered, seed: int
) -> dict[str, float]:
    """``test/fs_accuracy`` and ``test/fu_accuracy``: a fresh reader of what was selected, and of what was not."""
    lessons = batches_of(data, "train", FRESH)
    held_out = batches_of(data, "test", len(data.dataset("test")))
    figures = {}
    parts: Mapping[str, Part] = {"fs_accuracy": "selection", "fu_accuracy": "rest"}
    for name, part in parts.items():
        reader = train_reader(network, black_box, lessons, part, FRESH_EPOCHS, seed=seed)
        right: Sequence[Tensor] = [reader_agreement(reader, network, black_box, batch, part) for batch in held_out]
        figures[f"test/{name}"] = float(torch.cat(list(right)).mean())
    return figures


def _rows(
    network: AttentionNetwork, black_box: AttentionNetwork, data: Reordered, split: str, count: int, draws: int
) -> Rows:
    parts = [selection_rows(network, black_box, batch, draws=draws) for batch in batches_of(data, split, count)]
    return distinct_rows([{name: column.double().cpu().numpy() for name, column in rows.items()} for rows in parts])
