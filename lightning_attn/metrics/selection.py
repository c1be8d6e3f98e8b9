"""What a selection says of a black box, and what it tells beside what it points at."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.leakage import attention_features, mask_probe
from lightning_attn.metrics.functional.plausibility import auroc
from lightning_attn.metrics.shortcut import Rows
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.perturbation.variants import ranks, unperturbed
from lightning_attn.types import AttentionOutput, Batch, DataSchema

#: Means over examples; ``mask_only_accuracy`` and ``mask_only_bits`` come from a probe over all of them.
MEANS = ("fidelity", "post_hoc_accuracy", "post_hoc_rest", "random_accuracy", "precision", "auroc", "selected_share")
#: The same of fresh readers, where they were trained.
FRESH_MEANS = ("fs_accuracy", "fu_accuracy")
#: Largest picture, in cells, whose mask is described cell by cell.
_MOST_CELLS = 400


def selection_rows(
    network: AttentionNetwork,
    black_box: AttentionNetwork,
    batch: Batch,
    perturbation: Perturbation | None = None,
    draws: int = 3,
    seed: int = 0,
    max_tokens: int = 16384,
) -> dict[str, Tensor]:
    """What the selection of each example does to the black box.

    Args:
        network: Built network whose attention is hard.
        black_box: The network that is explained.
        batch: B examples.
        perturbation: What happens to what the black box is not shown; None means ``Delete()``.
        draws: Random selections per example, of the size of its selection: the floor of ``post_hoc_accuracy``.
        seed: Of these; they belong to the example, whatever the batch.
        max_tokens: See :func:`lightning_attn.perturbation.sweep.probabilities`.

    Returns:
        By name, shape ``(B,)``, each in [0, 1] and NaN where it does not apply to an example:

        - ``fidelity``: the network, which sees the selection, says what the black box says of the whole;
        - ``post_hoc_accuracy``: the black box says it of the selected part alone; ``post_hoc_rest``: of the rest;
        - ``random_accuracy``: of random selections of the same size, a mean over draws;
        - ``precision``: share of what is selected that is evidence; ``auroc``: of the scores against evidence;
        - ``selected_share``: selected positions over all.

        Besides ``index``, ``said`` (the black box's class of the whole), and ``mask``, a description of the selection
        that holds nothing of the input, shape ``(B, F)``.

    Raises:
        InputError: The attention selects nothing, because it is soft; or something holds NaN.
    """
    batch = batch.padded()
    output = _output(network, batch)
    inner = network.attendable(batch).inner
    selection = inner & (output.attention > 0)
    counts = selection.sum(dim=-1)
    requests = {"whole": unperturbed(batch), "selection": selection[:, None], "rest": (inner & ~selection)[:, None]}
    for draw in range(draws):
        noise = uniform(batch.index, batch.valid.shape[1], seed + draw)
        requests[f"random{draw}"] = (ranks(noise, batch) < counts[:, None])[:, None]
    requests = {name: keep | ~batch.inner[:, None] for name, keep in requests.items()}
    asked = sweep(black_box, batch.replace(query_vector=None), requests, perturbation, max_tokens)
    answers = {name: chance[:, 0].argmax(dim=-1) for name, chance in asked.items()}
    if not all(chance.isfinite().all() for chance in asked.values()):
        raise InputError("The black box answers NaN or infinity, so there is nothing to explain; train it again.")
    said = answers["whole"]
    agree = {name: (answer == said).float() for name, answer in answers.items()}
    nothing_left = ~(inner & ~selection).any(dim=-1)
    rows = {
        "index": batch.index,
        "said": said,
        "fidelity": (output.logits.argmax(dim=-1) == said).float(),
        "post_hoc_accuracy": agree["selection"],
        "post_hoc_rest": agree["rest"].masked_fill(nothing_left, math.nan),
        "random_accuracy": torch.stack([agree[f"random{draw}"] for draw in range(draws)]).mean(dim=0),
        "selected_share": counts / inner.sum(dim=-1).clamp(min=1),
        "mask": describe_mask(output.attention, batch, inner, network.schema),
    }
    if batch.evidence is not None:
        known = ~batch.evidence.isnan() & inner
        hits = (selection & known & (batch.evidence >= 0.5)).sum(dim=-1)
        judged = (selection & known).sum(dim=-1)
        relevant = (known & (batch.evidence >= 0.5)).any(dim=-1)
        rows["precision"] = (hits / judged.clamp(min=1)).masked_fill((judged == 0) | ~relevant, math.nan)
        rows["auroc"] = auroc(output.scores, batch.evidence, inner)
    return rows


def mask_rows(network: AttentionNetwork, black_box: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
    """``index``, ``said`` and ``mask`` of :func:`selection_rows`, and nothing else.

    Args:
        network: See :func:`selection_rows`.
        black_box: See :func:`selection_rows`.
        batch: B examples.
    """
    batch = batch.padded()
    output = _output(network, batch)
    said = sweep(black_box, batch.replace(query_vector=None), {"whole": unperturbed(batch)})["whole"][:, 0]
    mask = describe_mask(output.attention, batch, network.attendable(batch).inner, network.schema)
    return {"index": batch.index, "said": said.argmax(dim=-1), "mask": mask}


def _output(network: AttentionNetwork, batch: Batch) -> AttentionOutput:
    if not network.attention.hard:
        raise InputError(
            f"{type(network.attention).__name__} gives every position some weight, so there is no selection to "
            "measure: use TopKSelection or TopShareSelection as the attention, or ShortcutProbe for soft weights."
        )
    with torch.no_grad(), evaluating(network):
        output: AttentionOutput = network(network.read_query(batch))
    if not (output.attention.isfinite().all() and output.logits.isfinite().all()):
        raise InputError("The network's output holds NaN or infinity: its training diverged; train it again.")
    return output


def describe_mask(attention: Tensor, batch: Batch, inner: Tensor, schema: DataSchema) -> Tensor:
    """What a probe is told of a mask, shape ``(B, F)``: the cells of a small picture, or a summary of a text's weights.

    Args:
        attention: Shape ``(B, L)``.
        batch: Padded examples.
        inner: Positions that may be attended, shape ``(B, L)``, bool.
        schema: Says whether positions are cells of a picture.
    """
    if schema.grid is None or math.prod(schema.grid) > _MOST_CELLS:
        return attention_features(attention, inner)
    cells = math.prod(schema.grid)
    cell = schema.cell(batch.inputs).masked_fill(~batch.valid, 0)
    on = torch.zeros(len(batch), cells + 1, device=attention.device)
    return on.scatter_reduce(1, cell, (attention > 0).to(on.dtype), "amax")[:, 1:]


def selection_figures(
    rows: Rows, training: Rows | None = None, seed: int = 0
) -> tuple[dict[str, float], dict[str, str]]:
    """Figures of a split.

    Args:
        rows: Of all examples, each once; see :func:`selection_rows`.
        training: The same of training examples, for what their masks tell; ``said`` and ``mask`` are read.
        seed: Of the folds of the probe.

    Returns:
        Figures by name, those that are defined alone; and why the others are not.
    """
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in (*MEANS, *FRESH_MEANS):
        column = rows.get(name, np.empty(0))
        if np.isfinite(column).any():
            values[name] = float(np.nanmean(column))
    for suffix, part in (("", rows), ("_train", training)):
        if part is None:
            continue
        probe = mask_probe(part["mask"], part["said"].astype(np.int64), seed=seed)
        if probe.reason:
            reasons[f"mask_only_accuracy{suffix}"] = probe.reason
        else:
            values[f"mask_only_accuracy{suffix}"] = probe.accuracy
            values[f"mask_only_bits{suffix}"] = probe.bits
    return values, reasons
