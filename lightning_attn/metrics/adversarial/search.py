"""Our search for adversarial attention: the divergence is convex, so it is largest at an extreme point."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.metrics.adversarial.edges import cheapest_corner, corner_answers, edge_points, log_odds
from lightning_attn.metrics.adversarial.problem import Adversarial, AdversarialSolver, Problem
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.parts import by_parts
from lightning_attn.types import AttentionOutput, Batch

#: Candidates of an example that are held at a time: points on edges and a corner.
_HELD_OF_TWO_CLASSES, _HELD = 17, 33
#: Divergence that is not worth a longer search.
_NEGLIGIBLE = 1e-3
#: Steps of ascent, corrections of the output after each, and the length of a step.
_STEPS, _CORRECTIONS, _RATE = 30, 6, 4.0
#: A correction aims at this share of the distance allowed, changes no log-weight by more than this, and is damped.
_AIM, _REACH, _DAMPING = 0.9, 4.0, 1e-4
#: No share falls below exp of this, so that a position can come back.
_FLOOR = -16.0


class EdgeSolver(AdversarialSolver):
    """Looks for the maximum where it must be, among weights on few positions.

    The divergence from the attention is convex, so over the weights that keep the output it is largest at an extreme
    point. If the log-odds of two classes are linear in the weights, as under a linear head, these points are the
    corners of the simplex that keep the output (all mass on one position) and the points on its edges where the output
    has moved by just epsilon (the mass on two). The best of them is then the maximum itself, of texts of up to 64
    positions on either side; of longer ones, those with least attention are searched. Under any other head the points
    on the edges are found by false position and bisection. With more than two classes more than two positions may be
    needed, so a mirror ascent from four starts follows wherever the largest divergence of all was not reached.

    Whatever is found was verified with ``classify_many``, whatever the head. Nothing is random.

    Args:
        epsilon: See :class:`AdversarialSolver`.
    """

    def solve(
        self, network: AttentionNetwork, output: AttentionOutput, batch: Batch, max_tokens: int = 16384
    ) -> Adversarial:
        """See :meth:`AdversarialSolver.solve`."""
        with torch.no_grad(), evaluating(network):
            problem = Problem.from_output(network, output, batch)
            held = _HELD_OF_TWO_CLASSES if problem.one_margin else _HELD
            return by_parts(lambda rows: self._search(problem.select(rows), max_tokens), batch.valid, max_tokens, held)

    def _search(self, problem: Problem, max_tokens: int) -> Adversarial:
        corners = corner_answers(problem, max_tokens)
        kept = problem.inner & (problem.change(corners) <= self.epsilon)
        candidates = [cheapest_corner(problem, kept), edge_points(problem, log_odds(problem, corners), self.epsilon)]
        found = problem.best(torch.cat(candidates, dim=1), self.epsilon)
        if problem.one_margin:
            return found
        most = problem.divergence(cheapest_corner(problem, problem.inner)).squeeze(-1)
        rows = (found.jsd < most - _NEGLIGIBLE).nonzero().squeeze(-1)
        if len(rows):
            part = problem.select(rows)
            ascended = ascend(part, corners[rows], self.epsilon)
            best = part.best(torch.cat([found.attention[rows, None], ascended], dim=1), self.epsilon)
            found.jsd[rows], found.change[rows], found.attention[rows] = best.jsd, best.change, best.attention
        return found


def ascend(problem: Problem, corners: Tensor, epsilon: float) -> Tensor:
    """Weights far from the attention that keep the output, one for each of four starts.

    A step multiplies the weights by the exponential of the gradient of the divergence. The divergence is convex, so no
    such step lowers it. Then the output is put right: the weights are multiplied by the exponential of a linear
    function of the corners' logits, the least change (in Kullback-Leibler divergence) that moves the output so; a
    damped Newton step says which. It is exact where logits are linear in the weights.

    Args:
        problem: B examples.
        corners: Logits of every corner, shape ``(B, L, C)``.
        epsilon: How far the output may move.

    Returns:
        The farthest weights that each ascent met, shape ``(B, 4, L)``; the attention itself if none kept the output.
    """
    outside = ~problem.inner[:, None]
    features = (corners - corners.mean(dim=-1, keepdim=True)).masked_fill(~problem.inner[..., None], 0.0)
    attention = problem.attention[:, None]
    logs = _starts(problem, corners)
    farthest = attention.expand_as(logs)
    record = torch.zeros_like(logs[..., 0])
    for _ in range(_STEPS):
        logs, weights, kept = _correct(problem, logs, features, epsilon)
        divergence = problem.divergence(weights)
        better = kept & (divergence > record)
        record = torch.where(better, divergence, record)
        farthest = torch.where(better[..., None], weights, farthest)
        gradient = (2 * weights / (attention + weights).masked_fill(outside, 1.0)).clamp_min(1e-6).log() / 2
        logs = logs + _RATE * gradient.masked_fill(~kept[..., None], 0.0)
    return farthest


def _starts(problem: Problem, corners: Tensor) -> Tensor:
    """Logarithms of weights ``(B, 4, L)``: even; against the attention; among corners that change little; and near it.

    Each leads elsewhere. The last one keeps the output, or nearly, so that something is found where others fail.
    """
    near = problem.attention.clamp_min(1e-6).log()
    return torch.stack([torch.zeros_like(near), -near, -near - 6 * problem.change(corners), 0.8 * near], dim=1)


def _correct(problem: Problem, logs: Tensor, features: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-shares ``(B, V, L)`` put right, the weights that they give, and which keep the output ``(B, V)``."""
    outside = ~problem.inner[:, None]
    for remaining in range(_CORRECTIONS, -1, -1):
        logs = logs.masked_fill(outside, -torch.inf)
        shares = logs.softmax(dim=-1)
        weights = problem.place(shares)
        answers = problem.answers(weights)
        change = problem.change(answers)
        kept = change <= epsilon
        if not remaining or kept.all():
            break
        found = problem.probabilities(answers)
        excess = (1 - _AIM * epsilon / change.clamp_min(epsilon)).masked_fill(kept, 0.0)
        wanted = (problem.full[:, None] - found) * excess[..., None]
        slope = _slope(problem, found, shares, features)
        square = slope @ slope.mT
        damping = _DAMPING * square.diagonal(dim1=-2, dim2=-1).sum(dim=-1) + 1e-12
        square = square + torch.diag_embed(damping[..., None].expand_as(found))
        tilt = (slope.mT @ torch.linalg.solve(square, wanted[..., None])).mT @ features.mT[:, None]
        step = tilt.squeeze(2)
        step = step * (_REACH / step.abs().amax(dim=-1, keepdim=True).clamp_min(_REACH))
        logs = logs + step
        logs = (logs - logs.amax(dim=-1, keepdim=True)).clamp_min(_FLOOR)
    return logs, weights, kept


def _slope(problem: Problem, probabilities: Tensor, shares: Tensor, features: Tensor) -> Tensor:
    """Derivative of the probabilities by the coefficients of the tilt, shape ``(B, V, C, C)``."""
    mean = shares @ features
    spread = (shares[..., None] * features[:, None]).mT @ features[:, None] - mean[..., None] * mean[..., None, :]
    if problem.network.schema.multi_label:
        by_logits = torch.diag_embed(probabilities * (1 - probabilities))
    else:
        by_logits = torch.diag_embed(probabilities) - probabilities[..., None] * probabilities[..., None, :]
    return problem.mass[..., None, None] * (by_logits @ spread)
