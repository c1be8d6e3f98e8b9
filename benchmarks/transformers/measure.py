"""One cell of ``benchmarks.transformers``: fine-tune, choose attention heads, measure a method, or mitigate."""

from __future__ import annotations

import logging
import tempfile
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import Cell, rounded
from benchmarks.fitting import trainer_of
from benchmarks.kept import packed
from benchmarks.measuring import Array, Rows, batches_at, correct, device, in_order, order_of, perturbed, probed
from benchmarks.transformers.heads import chosen_heads, drawn_heads, every_head, found_heads
from benchmarks.transformers.methods import METHODS
from benchmarks.transformers.plan import ALL_HEADS, CLASSIFIER, HEADS, TUNING, VARIANTS, drawn, masked
from benchmarks.transformers.training import mitigated, module_of, tuned
from lightning_attn.attribution import Attribution, MaskLRP, ReleasedMaskLRP
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.data.windows import WindowDataset
from lightning_attn.metrics import Settings, measure
from lightning_attn.metrics.functional.plausibility import answer_recall
from lightning_attn.metrics.presets import PRESETS
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.perturbation.perturbations import Delete
from lightning_attn.types import Batch

KEPT = 400  # examples whose own figures are kept of what is measured on the whole test split
RECALL = 20  # tokens that count as found
#: By preset. With the preset of Mask-LRP comprehensiveness is AOPC: both have the same budgets.
ERASED = {
    "ours": ("comprehensiveness", "sufficiency", "aopc", "log_odds"),
    "mask_lrp": ("aopc", "log_odds", "sufficiency"),
}
CLASSIFYING = (
    "faithfulness/kendall_gradient",
    "faithfulness/comprehensiveness",
    "faithfulness/sufficiency",
    "faithfulness/comprehensiveness_random",
    "faithfulness/sufficiency_random",
)


def method_of(cell: Cell, root: str, model: str, work: str) -> Attribution:
    """The explanation of an arm."""
    arm, place = cell["arm"], (root, model, work)
    if arm == ALL_HEADS["released"]:
        return ReleasedMaskLRP(every_head(cell, *place))
    made = {"released": ReleasedMaskLRP, "clean": MaskLRP}
    for variant in VARIANTS:
        for selection in cell["selections"]:
            if arm == masked(variant, selection):
                return made[variant](chosen_heads(cell, selection, *place))
            if arm == drawn(variant, selection):
                return made[variant](drawn_heads(cell, selection, *place))
    return METHODS[arm](cell, [])


def explained_batches(data: AttentionDataModule, count: int, size: int) -> list[Batch]:
    """The first test texts; of questions the windows with the answer."""
    dataset, order = data.dataset("test"), order_of(data, "test")
    if isinstance(dataset, WindowDataset):
        order = order[dataset.chosen[order] & (dataset.labels[order, 1] > 0)]
    return batches_at(dataset, order[:count], size)


def faithful(network: TransformerModel, method: Attribution, batch: Batch) -> dict[str, Tensor]:
    """Erasure by each preset, of the class that the preset watches, and plausibility; by name, shape ``(B,)``."""
    with torch.no_grad():
        logits = network(batch).logits
    predicted = logits.argmax(dim=-1)
    scores = method.attribute(network, batch, predicted)
    found = {}
    for name, measures in ERASED.items():
        preset = PRESETS[name]
        target = preset.target(logits, batch)
        used = scores.clone()
        if len(others := (target != predicted).nonzero().squeeze(-1)):
            part = batch.select(others)
            again = method.attribute(network, part, target[others])
            used[others, : again.shape[1]] = again
        asked = tuple(f"faithfulness/{measure}" for measure in measures)
        values, _ = measure(network, batch, asked, Settings(preset), used)
        found |= {f"{name}/{one.split('/')[1]}": value for one, value in values.items()}
    if batch.evidence is not None:
        values, _ = measure(network, batch, ("plausibility/auprc",), scores=scores)
        found["auprc"] = values["plausibility/auprc"]
    return found


def recalled(network: TransformerModel, method: Attribution, batch: Batch) -> dict[str, Tensor]:
    """Recall of each answer among the top-ranked tokens, the predicted span explained; shape ``(B,)``."""
    hit, size = answer_recall(method.attribute(network, batch), batch, RECALL)
    return {"answer_recall": hit / size, "answer_tokens": size.double()}


def of_method(cell: Cell, root: str, model: str, work: str) -> Rows:
    """Every measure of an explanation, a figure a text."""
    network, data = tuned(cell, root, model, work)
    network, method = network.to(device()), method_of(cell, root, model, work)
    look = recalled if cell["task"] == "QA" else faithful
    parts: dict[str, list[Tensor]] = {}
    index = []
    for batch in explained_batches(data, cell["explained"], cell["chunk"]):
        for name, values in look(network, method, batch).items():
            parts.setdefault(name, []).append(values)
        index.append(batch.index)
    return in_order(parts, index, order_of(data, "test"))


def of_tuning(cell: Cell, root: str, model: str, work: str) -> tuple[Rows, dict[str, float]]:
    """How well the fine-tuned model does on the whole test split."""
    network, data = tuned(cell, root, model, work)
    figures = {f"{split} texts": len(data.dataset(split)) for split in ("train", "val", "test")}
    if cell["task"] != "QA":
        return {"accuracy": correct(network.to(device()), data, "test")}, figures
    module = module_of(cell, model)
    module.network = network
    module.make_metrics(network.schema)
    with tempfile.TemporaryDirectory() as folder:
        logged = trainer_of(1, folder, []).test(module, data, verbose=False)[0]
    return {}, figures | {name: float(logged[f"test/{name}"]) for name in ("exact_match", "f1")}


def of_mitigation(cell: Cell, root: str, model: str, work: str) -> tuple[Rows, dict[str, float]]:
    """Accuracy, faithfulness of the classifying row, and what leaks through it."""
    network, data = mitigated(cell, root, model, work)
    rows, figures = probed(network, data, ("leaked_bits",))
    found, _ = perturbed(network.to(device()), data, "test", cell["explained"], CLASSIFYING, Delete())
    return rows | found, figures


def compute(cell: Cell, root: str, model: str, work: str) -> dict[str, Any]:
    """Compute a cell.

    Returns:
        ``figures``: by name, means over texts. ``rows``: by name, figures of the first test texts, packed.
    """
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    place = (root, model, work)
    if cell["kind"] == HEADS:
        return rounded(found_heads(cell, *place))  # type: ignore[no-any-return]
    figures: dict[str, float] = {}
    if cell["kind"] == TUNING:
        rows, figures = of_tuning(cell, *place)
    elif cell["kind"] == CLASSIFIER:
        rows, figures = of_mitigation(cell, *place)
    else:
        rows = of_method(cell, *place)
    if "answer_tokens" in rows:
        size = rows.pop("answer_tokens")
        figures["pooled_recall"] = float((rows["answer_recall"] * size).sum() / size.sum())
    for name, values in rows.items():
        if not np.isnan(values).all():
            figures.setdefault(name, float(np.nanmean(values)))
    kept = {name: packed(_kept(name, values)) for name, values in rows.items()}
    return {"figures": rounded(figures), "rows": kept}


def _kept(name: str, values: Array) -> Array:
    return values if name == "accuracy" else values[:KEPT]
