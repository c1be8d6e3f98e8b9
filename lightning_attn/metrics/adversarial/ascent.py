"""Mirror ascent of the divergence along the weights that keep the output."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.metrics.adversarial.problem import Problem

#: Steps of ascent, corrections of the output after each, and the length of a step.
_STEPS, _CORRECTIONS, _RATE = 30, 6, 4.0
#: A correction aims at this share of the distance allowed, changes no log-weight by more than this, and is damped.
_AIM, _REACH, _DAMPING = 0.9, 4.0, 1e-4
#: No share falls below exp of this, so that a position can come back.
_FLOOR = -16.0


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
