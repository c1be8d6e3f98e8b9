"""Corners of the simplex: all of the mass on one position."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.metrics.adversarial.problem import Problem
from lightning_attn.ops.parts import rows_within


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
