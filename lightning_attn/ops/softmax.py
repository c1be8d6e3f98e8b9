"""Which positions may be attended, and the softmax over them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.types import Batch


def attendable(batch: Batch, attend_special: bool = False) -> Tensor:
    """Positions that may receive attention, shape ``(B, L)``, bool.

    Special tokens are left out unless ``attend_special``; a text that has nothing else attends to them all the same,
    because attention must be a distribution.
    """
    if attend_special:
        return batch.valid
    inner = batch.inner
    return torch.where(inner.any(dim=-1, keepdim=True), inner, batch.valid)


def masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over the allowed positions of the last dimension, exactly 0 elsewhere.

    Args:
        scores: Shape ``(..., L)``, finite where allowed.
        allowed: Shape ``(..., L)``, bool; a row without any allowed position gives zeros, never NaN.

    Returns:
        Weights that sum to 1 in every row that allows something, shape ``(..., L)``.
    """
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights.masked_fill(~allowed, 0.0)
