"""One cell of ``benchmarks.shortcut``: train, probe what travels in the mask, perturb, and keep a figure an example."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import Cell, rounded
from benchmarks.kept import packed
from benchmarks.measuring import (
    ERASURE,
    Array,
    Rows,
    batches_of,
    correct,
    device,
    in_order,
    order_of,
    perturbed,
    probed,
)
from benchmarks.reordered import Reordered
from benchmarks.shortcut.data import data_of
from benchmarks.shortcut.training import judge_of, trained
from lightning_attn.metrics.functional import comprehensiveness, kendall_tau, sufficiency
from lightning_attn.metrics.functional.erasure import explained
from lightning_attn.metrics.functional.evaluators import Training
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.budget import Fractions
from lightning_attn.perturbation.perturbations import Delete, Replace
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.perturbation.variants import top_k_kept, top_k_removed

KEPT = 400  # examples whose own figures are kept of what is measured on the whole test split
JUDGED = 4000  # training texts that evaluators learn from
PROBED = ("leaked_bits", "head_bits", "post_hoc_accuracy")
VALIDATED = 100  # validation texts on which arms and settings are chosen
#: What is shown as a mean alone, not compared example by example.
SHOWN = (
    "comprehensiveness",
    "sufficiency",
    "flip_fraction_gain",
    "b/comprehensiveness",
    "b/sufficiency",
    "b/agreement",
)
#: Faithfulness measures, less ``faithfulness/``; ``kendall_loo`` costs as much as the others together.
MEASURED = ("kendall_gradient", "kendall_loo", *ERASURE, *(f"{name}_random" for name in ERASURE))
FLIPS = ("flip_fraction", "flip_fraction_random", "flip_first")


def judged(judge: AttentionNetwork, data: Reordered, count: int, attention: list[Tensor]) -> Rows:
    """Comprehensiveness and sufficiency, less those of random rankings, of the rankings in the judge."""
    parts: dict[str, list[Tensor]] = {}
    index = []
    for batch, weights in zip(batches_of(data, "test", count), attention, strict=True):
        rankings = {"": weights, "_random": uniform(batch.index, batch.valid.shape[1], 0)}
        counts = Fractions().counts(batch)
        requests = {f"without{name}": top_k_removed(one, batch, counts) for name, one in rankings.items()}
        requests |= {f"only{name}": top_k_kept(one, batch, counts) for name, one in rankings.items()}
        with torch.no_grad():
            full = judge.schema.probabilities(judge(batch).logits)
        target = full.argmax(dim=-1)
        found = {name: explained(p, target) for name, p in sweep(judge, batch, requests, Replace(), full=full).items()}
        whole = full.gather(1, target[:, None]).squeeze(1)
        whole = whole.masked_fill(batch.inner.sum(dim=-1) < 2, torch.nan)
        for measured, name, request in ((comprehensiveness, ERASURE[0], "without"), (sufficiency, ERASURE[1], "only")):
            gain = measured(whole, found[request]) - measured(whole, found[f"{request}_random"])
            parts.setdefault(f"{name}_gain", []).append(gain)
        index.append(batch.index)
    return in_order(parts, index, order_of(data, "test"))


def agreement(one: list[Tensor], other: list[Tensor], data: Reordered, count: int) -> Array:
    """Kendall's tau of two networks' attention to the same texts."""
    batches = batches_of(data, "test", count)
    taus = [kendall_tau(a, b, batch.inner).tau for a, b, batch in zip(one, other, batches, strict=True)]
    return in_order({"tau": taus}, [batch.index for batch in batches], order_of(data, "test"))["tau"]


def compute(cell: Cell, root: str, work: str) -> dict[str, Any]:
    """Train the networks of a cell and measure them.

    Returns:
        ``figures``: by name, means over examples; those of version B begin with ``b/``, of the judge with ``c/``, of
        the validation split with ``val/``. ``rows``: by name, figures of the first test examples, packed. Of a cell
        that explains no test example, validation figures alone: it is there to choose by.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    data = data_of(cell, root, work)
    network = trained(cell, data)
    if cell["mask"] == "content-free":
        rows, figures = probed(network, data, PROBED)
    else:
        twin = network if cell["arm"] == "masked fine-tuning" else trained(cell, data, masked=True)
        network, twin = network.to(device()), twin.to(device())
        rows, figures = {}, validated(network, twin, data)
        if cell["explained"]:
            # Evaluators of patches need to be larger and to learn longer than those of words.
            training = None if data.schema.grid is None else Training(size=64, epochs=20)
            rows, found = probed(network, data, (*PROBED, "evalx_accuracy", "encoding_bits"), JUDGED, training)
            figures |= found
            rows |= versions(cell, data, network, twin, work)
    for name, values in rows.items():
        if not np.isnan(values).all():
            figures.setdefault(name, float(np.nanmean(values)))
    kept = {
        name: packed(values if "accuracy" in name else values[:KEPT])
        for name, values in rows.items()
        if name not in SHOWN
    }
    return {"figures": rounded(figures), "rows": kept}


def validated(network: AttentionNetwork, twin: AttentionNetwork, data: Reordered) -> dict[str, float]:
    """Figures of validation texts: accuracy of version A, erasure in version B; all that anything is chosen by."""
    erasure = tuple(f"faithfulness/{name}" for name in MEASURED if name.startswith(ERASURE))
    rows, _ = perturbed(twin, data, "val", VALIDATED, erasure, Replace())
    figures = {f"val/{name}_gain": float(np.nanmean(rows[f"{name}_gain"])) for name in ERASURE}
    return figures | {"val/accuracy": float(correct(network, data, "val").mean())}


def versions(cell: Cell, data: Reordered, network: AttentionNetwork, twin: AttentionNetwork, work: str) -> Rows:
    """What perturbing the first test texts says in versions A, B and C."""
    count, names = cell["explained"], MEASURED if cell["loo"] else tuple(n for n in MEASURED if n != "kendall_loo")
    asked = tuple(f"faithfulness/{name}" for name in (*names, *FLIPS))
    rows, attention = perturbed(network, data, "test", count, (*asked, "plausibility/auprc"), Delete())
    second, other = perturbed(twin, data, "test", count, asked, Replace())
    rows |= {f"b/{name}": values for name, values in second.items()}
    rows["b/accuracy"] = correct(twin, data, "test")[order_of(data, "test")]
    rows["b/agreement"] = agreement(attention, other, data, count)
    judge = judge_of(cell, data, work).to(device())
    return rows | {f"c/{name}": values for name, values in judged(judge, data, count, attention).items()}
