"""Dropout on attention weights: the control that any mitigation has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import DrawingMitigation
from lightning_attn.types import Batch


class AttentionDropout(DrawingMitigation):
    """Zeroes weights at random while training: ``a_i z_i / (1 - p)``, ``z_i ~ Bernoulli(1 - p)``.

    Noise around the learned weights, whose mean they stay: label information in them is blurred, not removed. So it is
    the control for mitigations that show the head weights drawn independently of the text.

    Args:
        p: Share of weights that are zeroed, in (0, 1).
        renormalise: Whether what is left is scaled to sum to 1, and not by 1 / (1 - p), as PyTorch's own attention
            does. A text whose weights are all zeroed then keeps them.
        seed: See :class:`DrawingMitigation`.

    Raises:
        InputError: ``p`` is out of its range.
    """

    def __init__(self, p: float = 0.3, renormalise: bool = False, seed: int = 0) -> None:
        if not 0 < p < 1:
            raise InputError(f"AttentionDropout needs p in (0, 1), got {p}; use NoMitigation to switch it off.")
        super().__init__(seed)
        self.p = p
        self.renormalise = renormalise

    def observe(self, attention: Tensor, batch: Batch) -> Tensor:
        """Weights with some of them at 0, shape ``(B, L)``."""
        with self.drawing(attention.device):
            kept = attention * (torch.rand_like(attention) >= self.p)
        if not self.renormalise:
            return kept / (1 - self.p)
        mass = kept.sum(dim=-1, keepdim=True)
        return torch.where(mass > 0, kept / mass.clamp_min(torch.finfo(mass.dtype).tiny), attention)
