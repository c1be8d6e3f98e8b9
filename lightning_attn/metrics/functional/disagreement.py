"""How much do several attentions over the same positions differ, and does that tell where they are wrong?

Attentions are those of the K members of an ensemble, or of any trainings. What compares ranks is better given the
logarithm of the weights, see :meth:`AttentionEnsemble.member_log_weights`: a saturated softmax has ties at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.ops.divergence import jensen_shannon


def pairwise_jsd(attention: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of all pairs of members.

    Args:
        attention: Weights of each member, shape ``(K, B, L)``, 0 on padding.

    Returns:
        Shape ``(B,)``, in [0, ln 2] nats; 0 where all members agree.

    Raises:
        InputError: There are fewer than two members.
    """
    count = _several(attention)
    pairs = [jensen_shannon(attention[number], attention[number + 1 :]).sum(dim=0) for number in range(count - 1)]
    return torch.stack(pairs).sum(dim=0).clamp(min=0.0) / (count * (count - 1) / 2)


def pairwise_rank_correlation(scores: Tensor, inner: Tensor) -> Tensor:
    """Mean Spearman rank correlation of all pairs of members; tied positions share their mean rank.

    Args:
        scores: Of each member, shape ``(K, B, L)``; only their order counts.
        inner: ``Batch.inner``, shape ``(B, L)``.

    Returns:
        Shape ``(B,)``, float64, in [-1, 1]; pairs with a member that ranks nothing, because all its scores are equal,
        are left out, and NaN stands where no pair is left.

    Raises:
        InputError: There are fewer than two members.

    Source: Spearman, American Journal of Psychology 1904.
    """
    _several(scores)
    ranks = _ranks(scores, inner)
    centred = (ranks - (inner.sum(dim=-1, keepdim=True) + 1).double() / 2) * inner
    norm = centred.square().sum(dim=-1, keepdim=True).sqrt()
    defined = (norm > 0).squeeze(-1).sum(dim=0)
    unit = torch.where(norm > 0, centred / norm.where(norm > 0, 1.0), 0.0)
    # The square of a sum of unit vectors is their number and twice the products of all pairs.
    together = unit.sum(dim=0).square().sum(dim=-1) - defined
    return (together / (defined * (defined - 1))).masked_fill(defined < 2, torch.nan).clamp(-1.0, 1.0)


def pairwise_top_overlap(scores: Tensor, inner: Tensor, top_n: int) -> Tensor:
    """Mean share of the ``top_n`` best-ranked positions that two members have in common, over all pairs.

    Args:
        scores: Of each member, shape ``(K, B, L)``; of equal ones the earlier position comes first.
        inner: ``Batch.inner``, shape ``(B, L)``.
        top_n: Positions that count, at least 1; where there are fewer, all of them.

    Returns:
        Shape ``(B,)``, float64, in [0, 1]; NaN where there are no more than ``top_n`` positions, which all members have
        in common.

    Raises:
        InputError: There are fewer than two members, or ``top_n`` is below 1.
    """
    count = _several(scores)
    if top_n < 1:
        raise InputError(f"top_n, the positions whose overlap is counted, must be at least 1, not {top_n}.")
    order = scores.masked_fill(~inner, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    chosen = ((order.argsort(dim=-1) < top_n) & inner).double().sum(dim=0)  # by how many members
    common = (chosen.square().sum(dim=-1) - count * top_n) / (count * (count - 1) * top_n)
    return common.masked_fill(inner.sum(dim=-1) <= top_n, torch.nan)


def member_deviation(attention: Tensor) -> Tensor:
    """Standard deviation of each position's weight over the members, as that of a population.

    Args:
        attention: Weights of each member, shape ``(K, B, L)``.

    Returns:
        Shape ``(B, L)``, in [0, 1/2].

    Raises:
        InputError: There are fewer than two members.
    """
    _several(attention)
    return attention.std(dim=0, unbiased=False)


@dataclass
class RiskCoverage:
    """How the mean error falls as the examples with the greatest uncertainty are left out.

    Attributes:
        coverage: Shares of the examples that are kept, ``1/N ... 1``, shape ``(N,)``.
        risk: Mean error of those kept, shape ``(N,)``.
        area: Mean of ``risk`` over all coverages; low if uncertainty foretells errors.
        random: What any order that knows nothing gets on average: the mean error of all.
        oracle: What the order of the errors themselves gets: nothing gets less.
    """

    coverage: Tensor
    risk: Tensor
    area: float
    random: float
    oracle: float

    @property
    def gain(self) -> float:
        """How far from random to the oracle: 1 as good as knowing, 0 as good as guessing, below 0 misleading.

        NaN where all errors are equal, so that no order matters.
        """
        possible = self.random - self.oracle
        return (self.random - self.area) / possible if possible > 1e-12 else float("nan")


def risk_coverage(uncertainty: Tensor, error: Tensor) -> RiskCoverage:
    """The risk-coverage curve of an uncertainty, with its two references.

    Equal uncertainties stand for all their orders: each of these examples counts with their mean error. Examples with a
    NaN on either side are left out.

    Args:
        uncertainty: The larger, the earlier an example is left out; shape ``(N,)``.
        error: Shape ``(N,)``, any real numbers, such as 1 less the AUROC of the attention.

    Returns:
        Curve and areas in float64; NaN areas where no example is left.

    Source: El-Yaniv and Wiener, JMLR 2010; the area as in Geifman, Uziel and El-Yaniv, ICLR 2019,
    https://arxiv.org/abs/1805.08206, section 3.
    """
    known = ~(uncertainty.isnan() | error.isnan())
    uncertainty, error = uncertainty[known].double(), error[known].double()
    if not len(error):
        nothing = error.new_empty(0)
        return RiskCoverage(nothing, nothing, float("nan"), float("nan"), float("nan"))
    _, group, sizes = torch.unique(uncertainty, return_inverse=True, return_counts=True)
    means = error.new_zeros(len(sizes)).index_add(0, group, error) / sizes
    risk = _mean_so_far(means.repeat_interleave(sizes))
    coverage = torch.arange(1, len(error) + 1, device=error.device).double() / len(error)
    oracle = _mean_so_far(error.sort().values)
    return RiskCoverage(coverage, risk, float(risk.mean()), float(error.mean()), float(oracle.mean()))


def _mean_so_far(values: Tensor) -> Tensor:
    return values.cumsum(dim=0) / torch.arange(1, len(values) + 1, device=values.device)


def _several(members: Tensor) -> int:
    count = len(members)
    if count < 2:
        raise InputError(f"Members can only disagree if there are at least two of them, not {count}.")
    return count


def _ranks(scores: Tensor, inner: Tensor) -> Tensor:
    """Ranks from 1 among the inner positions, ties sharing their mean, float64; any number elsewhere."""
    scores = scores.double().masked_fill(~inner, torch.inf).contiguous()
    ordered = scores.sort(dim=-1).values
    below = torch.searchsorted(ordered, scores)
    return (below + torch.searchsorted(ordered, scores, right=True) + 1).double() / 2
