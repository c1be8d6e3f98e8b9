"""Disagreement of an ensemble's members: `disagreement` for a batch, `RiskCoverageGain` over distinct examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_attn.metrics.base import PerExampleMean
from lightning_attn.metrics.functional.disagreement import (
    RiskCoverage,
    member_deviation,
    pairwise_jsd,
    pairwise_rank_correlation,
    pairwise_top_overlap,
    risk_coverage,
)
from lightning_attn.metrics.functional.kendall import merge_close
from lightning_attn.metrics.functional.plausibility import auroc
from lightning_attn.networks.ensemble import AttentionEnsemble
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.parts import by_parts
from lightning_attn.types import Batch

#: Log-weights that differ by less are equal: rounding, which depends on what else is in the batch, must not rank.
_NOISE = 1e-5


@dataclass
class Disagreement:
    """How much the members' attention differs on each example, each ``(B,)``, NaN where undefined.

    Attributes:
        jsd: See :func:`pairwise_jsd`.
        rank_correlation: See :func:`pairwise_rank_correlation`.
        top_overlap: See :func:`pairwise_top_overlap`.
        largest_deviation: The largest :func:`member_deviation` of a position.
        attention_auroc: Of the ensemble's attention for the evidence, see :func:`auroc`; NaN without evidence.
    """

    jsd: Tensor
    rank_correlation: Tensor
    top_overlap: Tensor
    largest_deviation: Tensor
    attention_auroc: Tensor


def disagreement(network: AttentionEnsemble, batch: Batch, top_n: int = 3, max_tokens: int = 16384) -> Disagreement:
    """How much the members' attention differs, and how good the ensemble's attention is where that is known.

    Args:
        network: At least two members.
        batch: B padded examples.
        top_n: Positions whose overlap counts.
        max_tokens: Positions, padding included, that are held at a time.

    Raises:
        InputError: The ensemble has fewer than two members, or a number is below 1.
    """

    def part(rows: Tensor) -> Disagreement:
        chosen = batch.select(rows)
        log_weights, combined = network.member_log_weights(chosen), network(chosen).scores
        attention, ranked, inner = log_weights.exp(), ranking(log_weights, chosen), chosen.inner
        quality = torch.full(rows.shape, torch.nan, device=rows.device)
        if chosen.evidence is not None:
            quality = auroc(merge_close(combined, inner, _NOISE), chosen.evidence, inner)
        return Disagreement(
            jsd=pairwise_jsd(attention),
            rank_correlation=pairwise_rank_correlation(ranked, inner),
            top_overlap=pairwise_top_overlap(ranked, inner, top_n),
            largest_deviation=member_deviation(attention).amax(dim=-1),
            attention_auroc=quality,
        )

    with torch.no_grad(), evaluating(network):
        return by_parts(part, batch.valid, max_tokens, repeats=len(network.members))


def ranking(log_weights: Tensor, batch: Batch) -> Tensor:
    """Log-weights ``(K, B, L)`` in which differences of rounding noise are ties: for ranking only, same shape."""
    count = len(log_weights)
    return merge_close(log_weights.flatten(0, 1), batch.inner.repeat(count, 1), _NOISE).view_as(log_weights)


class RiskCoverageGain(PerExampleMean):
    """Does an uncertainty foretell errors, over distinct examples? :attr:`RiskCoverage.gain`, at most 1.

    Attributes:
        result: The whole curve, set by ``compute``.
    """

    higher_is_better = True
    columns = 2

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.result: RiskCoverage | None = None

    def update(self, uncertainty: Tensor, error: Tensor, index: Tensor) -> None:
        """Add a batch: uncertainty, error and row of the data set of each example, each ``(B,)``."""
        self.add(torch.stack([uncertainty, error], dim=-1), index)

    def compute(self) -> Tensor:
        """The gain, a scalar; NaN where no order matters."""
        rows, _ = self.rows()
        self.count = int((~rows.isnan().any(dim=-1)).sum())
        self.skipped = len(rows) - self.count
        self.result = risk_coverage(rows[:, 0], rows[:, 1])
        return torch.tensor(self.result.gain, device=self.device)
