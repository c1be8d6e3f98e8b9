"""Which positions each variant of a batch keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.types import Batch


def ranks(attributions: Tensor, batch: Batch) -> Tensor:
    """Rank of every position, 0 = the highest, shape ``(B, L)``, int64; ties go to the earlier position.

    Positions that are not ``batch.inner`` come last.
    """
    order = attributions.masked_fill(~batch.inner, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1)


def unperturbed(batch: Batch) -> Tensor:
    """The one variant that keeps everything, shape ``(B, 1, L)``."""
    return torch.ones_like(batch.valid)[:, None]


def leave_one_out(batch: Batch) -> Tensor:
    """Variant i lacks position i, shape ``(B, L, L)``; nothing is removed where i is special or padding."""
    length = batch.valid.shape[1]
    return ~(torch.eye(length, dtype=torch.bool, device=batch.device) & batch.inner[:, None])


def top_k_removed(attributions: Tensor, batch: Batch, counts: Tensor) -> Tensor:
    """Variants without their k best-ranked positions.

    Args:
        attributions: Shape ``(B, L)``.
        batch: Says which positions may be ranked and removed.
        counts: k of each variant, shape ``(B, K)``, from :meth:`lightning_attn.perturbation.budget.Budget.counts`.

    Returns:
        What to keep, shape ``(B, K, L)``, bool.
    """
    removed = ranks(attributions, batch)[:, None] < counts[..., None]
    return ~(removed & batch.inner[:, None])


def top_k_kept(attributions: Tensor, batch: Batch, counts: Tensor) -> Tensor:
    """Variants with only their k best-ranked positions, and special ones; see :func:`top_k_removed`."""
    return (ranks(attributions, batch)[:, None] < counts[..., None]) | ~batch.inner[:, None]
