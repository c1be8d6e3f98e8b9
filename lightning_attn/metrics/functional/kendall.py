"""Kendall's tau-b of two score vectors an example, for a whole padded batch at once."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

#: Pairs compared at a time: bounds the memory, and few of them stay in the cache. Larger blocks take twice as long.
_CHUNK = 1 << 17
#: Without ties, p-values are exact up to this length, as in ``scipy.stats.kendalltau(method="auto")``.
_EXACT = 33


class KendallTau(NamedTuple):
    """Correlation and two-sided p-value, each of shape ``(B,)``, float64, NaN where undefined."""

    tau: Tensor
    p_value: Tensor


def merge_close(x: Tensor, valid: Tensor, tolerance: Tensor | float) -> Tensor:
    """Values in which neighbours that differ by at most ``tolerance`` have become equal.

    Rounding noise depends on what else is in the batch. Where two tokens score exactly alike in theory it would decide
    their order, and a rank correlation would differ from one batch, or number of processes, to another.

    Args:
        x: Shape ``(B, L)``.
        valid: Positions that count, shape ``(B, L)``, bool.
        tolerance: One number, or one an example, shape ``(B, 1)``.

    Returns:
        Group numbers in the order of ``x``, shape ``(B, L)``, dtype of ``x``; 0 where not valid. No group is wider than
        the tolerance, however densely the values lie.
    """
    ordered, order = x.masked_fill(~valid, torch.inf).sort(dim=-1)
    chained = ordered.diff(dim=-1) > tolerance  # inf - inf is NaN, and NaN > tolerance is False
    new = torch.nn.functional.pad(chained, (1, 0), value=True)
    start = ordered.masked_fill(~new, -torch.inf).cummax(dim=-1).values
    # Many values in small steps make a chain without end: it is cut into pieces as wide as the tolerance.
    piece = ((ordered - start) / tolerance).nan_to_num(0.0).floor()
    steps = chained | (piece.diff(dim=-1) > 0)
    groups = torch.nn.functional.pad(steps.cumsum(dim=-1), (1, 0))
    return torch.empty_like(x).scatter(-1, order, groups.to(x)).masked_fill(~valid, 0.0)


def kendall_tau(x: Tensor, y: Tensor, valid: Tensor) -> KendallTau:
    """Kendall's tau-b with two-sided p-values, equal to ``scipy.stats.kendalltau`` of every row.

    Args:
        x: Scores, shape ``(B, L)``, compared in their own precision.
        y: Other scores, shape ``(B, L)``.
        valid: Positions that count, shape ``(B, L)``, bool.

    Returns:
        ``tau`` in [-1, 1] and ``p_value`` in [0, 1]; NaN where fewer than two positions count, where one side is
        constant, or where a score is NaN.

    Source: Kendall, Biometrika 1945; the p-value is exact for short rows without ties and normal otherwise.
    """
    bad = ((x.isnan() | y.isnan()) & valid).any(dim=-1)
    n = valid.sum(dim=-1)
    score, x_ties, y_ties = _compare(_finite(x, valid), _finite(y, valid))
    # A padded position ranks last on both sides, so it adds one concordant pair for each position that counts.
    score = score - n * (~valid).sum(dim=-1)
    x_ties, y_ties = x_ties.masked_fill(~valid, 0), y_ties.masked_fill(~valid, 0)

    pairs = n * (n - 1) // 2
    x_tied, y_tied = x_ties.sum(dim=-1) // 2, y_ties.sum(dim=-1) // 2
    untied = ((pairs - x_tied).double().sqrt() * (pairs - y_tied).double().sqrt()).masked_fill(bad, torch.nan)
    defined = untied > 0
    tau = torch.where(defined, (score / untied).clamp(-1.0, 1.0), torch.nan)

    discordant = (pairs - score) // 2  # asked for only where nothing is tied
    rarer = torch.minimum(discordant, pairs - discordant)
    exact = (x_tied == 0) & (y_tied == 0) & ((n <= _EXACT) | (rarer <= 1))
    p_value = torch.where(exact, _exact_p(n, rarer), _normal_p(n, score, x_ties, y_ties))
    return KendallTau(tau, p_value.masked_fill(~defined, torch.nan))


def significant(p_value: Tensor, level: float = 0.05) -> Tensor:
    """1 where ``p_value <= level``, 0 where not, NaN where the p-value is; same shape."""
    return (p_value <= level).double().masked_fill(p_value.isnan(), torch.nan)


def _finite(x: Tensor, valid: Tensor) -> Tensor:
    """Scores whose differences are finite, padding above all others."""
    x = x if x.is_floating_point() else x.double()
    largest = torch.finfo(x.dtype).max
    return x.nan_to_num().clamp(-largest / 2, largest / 2).masked_fill(~valid, largest)


def _compare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of positions, in blocks.

    Returns:
        Concordant minus discordant pairs, shape ``(B,)``, and for each position how many others tie with it in ``x``
        and in ``y``, each ``(B, L)``; int64.
    """
    batch, length = x.shape
    score = torch.zeros(3, batch, length, device=x.device)
    rows, columns = max(1, _CHUNK // max(1, length) ** 2), max(1, _CHUNK // max(1, length))
    for first in range(0, batch, rows):
        a, b = x[first : first + rows], y[first : first + rows]
        for start in range(0, length, columns):
            # Signs of at most 2**24 pairs add up exactly in float32, which is faster than any integer.
            cut = slice(start, start + columns)
            over = (a[:, cut, None] - a[:, None]).sign_().to(torch.float32)
            other = (b[:, cut, None] - b[:, None]).sign_().to(torch.float32)
            part = score[:, first : first + rows, cut]
            part[0] = (over * other).sum(dim=-1)
            part[1] = over.square_().sum(dim=-1)
            part[2] = other.square_().sum(dim=-1)
    concordance, x_distinct, y_distinct = score.long()
    return concordance.sum(dim=-1) // 2, length - 1 - x_distinct, length - 1 - y_distinct


@functools.cache
def _inversions() -> Tensor:
    """``[n, c]``: share of the orders of n things with at most c inversions, float64."""
    most = _EXACT * (_EXACT - 1) // 2
    mass = torch.zeros(_EXACT + 1, most + 1, dtype=torch.float64)
    mass[:2, 0] = 1.0
    for n in range(2, _EXACT + 1):
        for moved in range(n):  # the n-th thing passes 0 ... n-1 others
            mass[n, moved:] += mass[n - 1, : most + 1 - moved] / n
    return mass.cumsum(dim=-1)


def _exact_p(n: Tensor, rarer: Tensor) -> Tensor:
    """Two-sided p of ``rarer`` discordant (or concordant) pairs among n without ties, shape ``(B,)``, float64."""
    table = _inversions().to(n.device)
    short = n <= _EXACT
    c = torch.where(short, rarer, 0).clamp(0, table.shape[1] - 1)
    tabled = 2 * table[torch.where(short, n, 0), c]
    # Longer rows come here with at most one such pair: 1 + (n - 1) c of the n! orders.
    few = 2 * torch.exp(((n - 1) * rarer + 1).clamp(min=1).double().log() - torch.lgamma(n.double() + 1))
    return torch.where(short, tabled, few).clamp(max=1.0)


def _normal_p(n: Tensor, score: Tensor, x_ties: Tensor, y_ties: Tensor) -> Tensor:
    """Two-sided p by the normal approximation with the variance corrected for ties, shape ``(B,)``, float64."""
    m = n.double() * (n.double() - 1)

    def moments(ties: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Over positions, each of the t members of a tied group has ties = t - 1.
        other = ties.double()
        first = other.sum(dim=-1) / 2
        second = (other * (other - 1)).sum(dim=-1)
        third = (other * (2 * (other + 1) + 5)).sum(dim=-1)
        return first, second, third

    x_first, x_second, x_third = moments(x_ties)
    y_first, y_second, y_third = moments(y_ties)
    variance = (m * (2 * n + 5) - x_third - y_third) / 18
    variance = variance + 2 * x_first * y_first / m + x_second * y_second / (9 * m * (n - 2))
    # With n = 2 the last term is 0 / 0; such a row without ties has an exact p and any other is undefined.
    return torch.erfc(score.abs() / variance.sqrt() / 2**0.5)
