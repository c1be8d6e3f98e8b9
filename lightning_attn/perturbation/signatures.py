"""Signatures of 64 bits, by which equal variants, and equal parts of them, are found; others collide once in 2^64."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.ops.randomness import mix

#: Its multiples, added to signatures, tell equal ones of different texts apart; odd, so that none are the same.
OWNER = 0x9E3779B97F4A7C15 - (1 << 64)

#: Elements of the largest temporary tensor while variants are compared.
_CHUNK = 1 << 22


def distinct(signatures: Tensor) -> tuple[Tensor, Tensor]:
    """Where each distinct one first stands, shape ``(U,)``, and which of them each is, shape ``(N,)``."""
    ordered, order = signatures.sort(stable=True)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=starts[1:])
    return order[starts], torch.empty_like(order).scatter_(0, order, starts.cumsum(0) - 1)


def removal_signatures(keep: Tensor, inner: Tensor) -> Tensor:
    """A number for what each variant removes, shape ``(B, V)``, int64; 0 for nothing.

    Args:
        keep: What variants keep, shape ``(B, V, L)``, bool.
        inner: What may be removed, shape ``(B, L)``, bool.
    """
    codes = mix(torch.arange(keep.shape[-1], device=keep.device))
    zero = codes.new_zeros(())
    parts = [torch.where(keep[part] | ~inner[part, None], zero, codes).sum(dim=-1) for part in _chunks(keep)]
    return torch.cat(parts)


def removed_counts(keep: Tensor, inner: Tensor) -> Tensor:
    """How many positions each variant removes, shape ``(B, V)``, int64; see :func:`removal_signatures`."""
    parts = [(~keep[part] & inner[part, None]).sum(dim=-1) for part in _chunks(keep)]
    return torch.cat(parts)


def _chunks(keep: Tensor) -> list[slice]:
    """Slices of examples whose variants together stay small."""
    step = max(1, _CHUNK // keep[0].numel())
    return [slice(start, start + step) for start in range(0, len(keep), step)]
