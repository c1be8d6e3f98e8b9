"""Edges of the simplex: the mass on two positions, mixed so that the output moves by just what it may."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.metrics.adversarial.problem import Problem
from lightning_attn.ops.parts import rows_within

#: Positions on each side of a level from which edges are made: those with least attention.
_POSITIONS = 64
#: Edges of each level that are tried on the network.
_TRIED = 8
#: Steps to a point that keeps the output, then steps from it to where the output no longer is kept.
_INWARD, _OUTWARD = 8, 12
#: Share of the distance allowed that is aimed at, so that rounding carries no point across; and what is near enough.
_AIM, _NEAR = 0.999, 0.99


def one_position(problem: Problem, positions: Tensor) -> Tensor:
    """Weights of shape ``(B, V, L)`` that put everything on the positions ``(B, V)``."""
    shares = torch.nn.functional.one_hot(positions, problem.attention.shape[1])
    return problem.place(shares.to(problem.attention.dtype))


def corner_answers(problem: Problem, max_tokens: int) -> Tensor:
    """Logits of every corner, shape ``(B, L, C)``, a few corners at a time; meaningless where not inner."""
    count, length = problem.attention.shape
    positions = torch.arange(length, device=problem.attention.device)
    parts = torch.split(positions, rows_within(max_tokens, count * length))
    return torch.cat([problem.answers(one_position(problem, part.expand(count, -1))) for part in parts], dim=1)


def cheapest_corner(problem: Problem, allowed: Tensor) -> Tensor:
    """Weights ``(B, 1, L)`` of the corner that is farthest from the attention among those allowed ``(B, L)``.

    The less attention a position has, the farther its corner is. Where none is allowed, the attention itself.
    """
    positions = problem.attention.masked_fill(~allowed, torch.inf).argmin(dim=-1, keepdim=True)
    corner = one_position(problem, positions)
    return torch.where(allowed.any(dim=-1)[:, None, None], corner, problem.attention[:, None])


def log_odds(problem: Problem, logits: Tensor) -> Tensor:
    """Log-odds of the class that the attention predicts, shape ``(B, V)``, from logits ``(B, V, C)``."""
    explained = problem.logits.argmax(dim=-1)[:, None, None].expand(-1, logits.shape[1], 1)
    own = logits.gather(-1, explained).squeeze(-1)
    if problem.network.schema.multi_label:
        return own
    return own - logits.scatter(-1, explained, -torch.inf).logsumexp(dim=-1)


@dataclass
class Edges:
    """E edges an example, each between a position with low and one with high log-odds; tensors are ``(B, E)``.

    Attributes:
        problem: B examples.
        low: One end.
        high: The other.
        low_odds: Log-odds with all of the mass on ``low``.
        high_odds: Log-odds with all of it on ``high``, larger than ``low_odds``.
        share: Share of ``low`` at which the level is reached if log-odds are linear on the edge.
        real: False where an example has fewer edges than E.
    """

    problem: Problem
    low: Tensor
    high: Tensor
    low_odds: Tensor
    high_odds: Tensor
    share: Tensor
    real: Tensor

    def weights(self, share: Tensor) -> Tensor:
        """Weights ``(B, E, L)`` of the points with ``share`` ``(B, E)`` of the mass on the low end."""
        shares = share.new_zeros(*share.shape, self.problem.attention.shape[1])
        shares.scatter_(-1, self.low[..., None], share[..., None])
        shares.scatter_(-1, self.high[..., None], 1 - share[..., None])
        return self.problem.place(shares)


def edges_across(problem: Problem, odds: Tensor, level: Tensor, count: int) -> Edges:
    """The edges on which a level of log-odds is crossed farthest from the attention.

    Args:
        problem: B examples.
        odds: Log-odds of every corner, shape ``(B, L)``.
        level: Shape ``(B, 1)``; no edge crosses an infinite one.
        count: How many at most.
    """
    attention = problem.attention
    sides = []
    for side in (problem.inner & (odds < level), problem.inner & (odds > level)):
        order = attention.masked_fill(~side, torch.inf).argsort(dim=-1, stable=True)[:, :_POSITIONS]
        sides.append((order, side.gather(-1, order), odds.gather(-1, order), attention.gather(-1, order)))
    (low, low_real, low_odds, low_weight), (high, high_real, high_odds, high_weight) = sides
    real = low_real[:, :, None] & high_real[:, None] & level.isfinite()[..., None]
    share = ((high_odds[:, None] - level[..., None]) / (high_odds[:, None] - low_odds[:, :, None])).where(real, 0.5)

    mass = problem.mass[..., None]
    # Half of ln 2 is what a position adds that loses all of its weight.
    gone = (mass - low_weight[:, :, None] - high_weight[:, None]) * (math.log(2) / 2)
    divergence = gone + _term(low_weight[:, :, None], mass * share) + _term(high_weight[:, None], mass * (1 - share))
    best = divergence.masked_fill(~real, -torch.inf).flatten(1).argsort(dim=-1, descending=True, stable=True)
    best = best[:, :count]
    first, second = best // high.shape[1], best % high.shape[1]
    return Edges(
        problem=problem,
        low=low.gather(-1, first),
        high=high.gather(-1, second),
        low_odds=low_odds.gather(-1, first),
        high_odds=high_odds.gather(-1, second),
        share=share.flatten(1).gather(-1, best),
        real=real.flatten(1).gather(-1, best),
    )


def _term(p: Tensor, q: Tensor) -> Tensor:
    """What weights ``p`` and ``q`` of one position add to a Jensen-Shannon divergence."""
    both = (p + q).clamp_min(torch.finfo(p.dtype).tiny)
    return (torch.xlogy(p, 2 * p / both) + torch.xlogy(q, 2 * q / both)) / 2


def edge_points(problem: Problem, odds: Tensor, epsilon: float) -> Tensor:
    """Weights on two positions that move the output by nearly epsilon, shape ``(B, E, L)``.

    Args:
        problem: B examples.
        odds: Log-odds of every corner, shape ``(B, L)``.
        epsilon: How far the output may move.

    Returns:
        The attention itself in place of an edge on which no point was found.
    """
    if not problem.one_margin:
        # Which class stops the output, and where, is not known: start from unchanged log-odds, and go both ways.
        edges = edges_across(problem, odds, log_odds(problem, problem.logits[:, None]), 2 * _TRIED)
        share, kept = _inward(edges, epsilon)
        ends = torch.zeros_like(share), torch.ones_like(share)
        return torch.cat([_outward(edges, share, kept, end, (share + end) / 2, epsilon) for end in ends], dim=1)
    explained = problem.full.gather(-1, problem.logits.argmax(dim=-1, keepdim=True))
    shift = _AIM * epsilon
    found = []
    for level in ((explained - shift).clamp(0, 1).logit(), (explained + shift).clamp(0, 1).logit()):
        edges = edges_across(problem, odds, level, _TRIED)
        share, kept = _inward(edges, epsilon)
        beyond = (share < edges.share).to(share.dtype)
        found.append(_outward(edges, share, kept, beyond, edges.share, epsilon))
    return torch.cat(found, dim=1)


def _outward(edges: Edges, share: Tensor, kept: Tensor, outside: Tensor, probe: Tensor, epsilon: float) -> Tensor:
    """Weights ``(B, E, L)`` of the last points that keep the output, from ``share`` towards ``outside``.

    Args:
        edges: E edges of each example.
        share: Points that keep the output, shape ``(B, E)``.
        kept: Whether they do.
        outside: Points that do not.
        probe: Where to look first; then halfway, again and again.
        epsilon: How far the output may move.
    """
    problem, searched = edges.problem, kept
    for _ in range(_OUTWARD):
        if not searched.any():
            break
        change = problem.change(problem.answers(edges.weights(probe)))
        fine = change <= _AIM * epsilon + 1e-6
        share = torch.where(searched & fine, probe, share)
        outside = torch.where(searched & ~fine, probe, outside)
        searched = searched & ~(fine & (change >= _NEAR * epsilon))
        probe = (share + outside) / 2
    return torch.where(kept[..., None], edges.weights(share), problem.attention[:, None])


def _inward(edges: Edges, epsilon: float) -> tuple[Tensor, Tensor]:
    """Shares at which the log-odds are those of the attention, and whether the output is kept there, ``(B, E)``.

    Found by false position (the Illinois rule): at once where log-odds are linear, within a few steps elsewhere.
    """
    problem = edges.problem
    target = log_odds(problem, problem.logits[:, None])
    left, right = torch.zeros_like(edges.share), torch.ones_like(edges.share)
    above, below = edges.high_odds - target, edges.low_odds - target
    share = _between(left, right, above, below)
    kept = torch.zeros_like(edges.real)
    for _ in range(_INWARD):
        open_ = edges.real & ~kept
        if not open_.any():
            break
        logits = problem.answers(edges.weights(share))
        kept = kept | (open_ & (problem.change(logits) <= _AIM * epsilon))
        excess = log_odds(problem, logits) - target
        over = excess > 0
        above, below = torch.where(over, excess, above / 2), torch.where(over, below / 2, excess)
        left, right = torch.where(over, share, left), torch.where(over, right, share)
        share = torch.where(open_ & ~kept, _between(left, right, above, below), share)
    return share, kept


def _between(left: Tensor, right: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """Where a line that is ``above`` at ``left`` and ``below`` at ``right`` is zero; the nearer end if it is not."""
    above, below = above.clamp_min(0.0), below.clamp_max(0.0)
    span = above - below
    return left + (right - left) * torch.where(span > 0, above / span.clamp_min(torch.finfo(span.dtype).tiny), 0.5)
