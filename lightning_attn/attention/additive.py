"""Additive (Bahdanau) attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attn.attention.base import Attention


class AdditiveAttention(Attention):
    """``s_i = u . tanh(W k_i + b)``, the ``tanh`` attention of Jain and Wallace.

    Source: Bahdanau et al., ICLR 2015, https://arxiv.org/abs/1409.0473; here without a query, as in Jain and Wallace,
    NAACL 2019, https://arxiv.org/abs/1902.10186: ``W`` halves the size and ``u`` has no bias.

    Args:
        size: Rows of ``W``; None means half the key size, as published.
        temperature: See :class:`Attention`.
        attend_special: See :class:`Attention`.
    """

    def __init__(self, size: int | None = None, temperature: float = 1.0, attend_special: bool = False) -> None:
        super().__init__(temperature, attend_special)
        self.size = size

    def make_layers(self, key_size: int) -> None:
        """Create ``W, b`` and ``u``."""
        size = self.size or max(1, key_size // 2)
        self.project = nn.Linear(key_size, size)
        self.direction = nn.Linear(size, 1, bias=False)

    def score(self, keys: Tensor) -> Tensor:
        """Scores, shape ``(B, L)``, from keys ``(B, L, K)``."""
        return self.direction(torch.tanh(self.project(keys))).squeeze(-1)  # type: ignore[no-any-return]
