"""What explains the black box without any training: floors, ceilings, and attributions cut at k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.selection.data import Setting
from lightning_attn.attribution import Attribution, GradientXInput, IntegratedGradients, Occlusion
from lightning_attn.attribution.controls import AttentionWeights
from lightning_attn.metrics.functional.plausibility import auroc
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import ranks, unperturbed
from lightning_attn.types import Batch

GREEDY, EVIDENCE, RANDOM, ATTENTION = "greedy", "evidence", "random", "attention of the black box"
ATTRIBUTIONS: dict[str, Attribution] = {
    ATTENTION: AttentionWeights(),
    "gradient x input": GradientXInput(),
    "integrated gradients": IntegratedGradients(),
    "occlusion": Occlusion(),
}
BASELINES = (RANDOM, *ATTRIBUTIONS, GREEDY, EVIDENCE)
#: Passes of the black box per example, forward and backward counted alike; n is the number of positions.
PASSES = {
    RANDOM: "0",
    ATTENTION: "1",
    "gradient x input": "2",
    "integrated gradients": "2 per step",
    "occlusion": "n",
    GREEDY: "about k n",
    EVIDENCE: "0",
}


def baseline_figures(
    name: str, black_box: AttentionNetwork, batches: Sequence[Batch], setting: Setting, seed: int
) -> dict[str, float]:
    """Means over examples: post-hoc accuracy of the k best, of the rest, and agreement with evidence.

    Args:
        name: One of :data:`BASELINES`.
        black_box: The network to explain.
        batches: Test examples, padded.
        setting: Says k.
        seed: Of random selections.

    Returns:
        Those that are defined.
    """
    columns: dict[str, list[Tensor]] = {}
    for batch in batches:
        said = probabilities(black_box, batch, unperturbed(batch))[:, 0].argmax(dim=-1)
        kept, scores = _selection(name, black_box, batch, said, setting.k, seed)
        asked = probabilities(black_box, batch, torch.stack([kept, batch.inner & ~kept], dim=1)).argmax(dim=-1)
        chosen = kept.any(dim=-1)  # evidence may mark nothing
        right = (asked == said[:, None]).float().masked_fill(~chosen[:, None], torch.nan)
        rows = {"post_hoc_accuracy": right[:, 0], "post_hoc_rest": right[:, 1]}
        if batch.evidence is not None and name != EVIDENCE:
            known = ~batch.evidence.isnan() & batch.inner
            positive = known & (batch.evidence >= 0.5)
            judged = (kept & known).sum(dim=-1)
            share = (kept & positive).sum(dim=-1) / judged.clamp(min=1)
            rows["precision"] = share.masked_fill((judged == 0) | ~positive.any(dim=-1), torch.nan)
            rows["auroc"] = auroc(scores, batch.evidence, batch.inner)
        for column, values in rows.items():
            columns.setdefault(column, []).append(values.double())
    means = {column: float(np.nanmean(torch.cat(parts).numpy())) for column, parts in columns.items()}
    return means | {"examples": float(sum(map(len, columns.get("post_hoc_accuracy", []))))}


def _selection(
    name: str, black_box: AttentionNetwork, batch: Batch, said: Tensor, k: int, seed: int
) -> tuple[Tensor, Tensor]:
    """What is kept, shape ``(B, L)``, bool, and the scores that say so."""
    if name == EVIDENCE:
        assert batch.evidence is not None
        return batch.inner & (batch.evidence.nan_to_num(0.0) >= 0.5), batch.evidence.nan_to_num(0.0)
    if name == GREEDY:
        return _greedy(black_box, batch, said, k)
    if name == RANDOM:
        scores = uniform(batch.index, batch.valid.shape[1], seed)
    else:
        scores = ATTRIBUTIONS[name].attribute(black_box, batch, said)
    return (ranks(scores, batch) < k) & batch.inner, scores


def _greedy(black_box: AttentionNetwork, batch: Batch, said: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Forward selection: k times the position with which the black box is surest of what it says of the whole."""
    kept, scores = torch.zeros_like(batch.inner), torch.zeros(batch.inner.shape)
    each = torch.eye(batch.inner.shape[1], dtype=torch.bool)[None]
    for step in range(k):
        chances = probabilities(black_box, batch, kept[:, None] | each)
        chance = chances[torch.arange(len(batch)), :, said].masked_fill(kept | ~batch.inner, -1.0)
        best = chance.argmax(dim=-1, keepdim=True)
        kept = kept.scatter(1, best, True) & batch.inner
        scores = scores.scatter(1, best, float(k - step)) * batch.inner
    return kept, scores
