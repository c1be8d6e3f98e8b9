"""Gated attention of attention-based multiple-instance learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attn.attention.base import Attention


class GatedAttention(Attention):
    """``s_i = w . ( tanh(V k_i) * sigmoid(U k_i) )``: a gate undoes the near-linearity of tanh around 0.

    Source: Ilse, Tomczak and Welling, ICML 2018, https://arxiv.org/abs/1802.04712, equation 9.

    Args:
        size: Rows of ``V`` and ``U``; 128 in the authors' code.
        temperature: See :class:`Attention`.
        attend_special: See :class:`Attention`.
    """

    def __init__(self, size: int = 128, temperature: float = 1.0, attend_special: bool = False) -> None:
        super().__init__(temperature, attend_special)
        self.size = size

    def make_layers(self, key_size: int) -> None:
        """Create ``V``, ``U`` and ``w``."""
        self.project = nn.Linear(key_size, self.size)
        self.gate = nn.Linear(key_size, self.size)
        self.direction = nn.Linear(self.size, 1)

    def score(self, keys: Tensor) -> Tensor:
        """Scores, shape ``(B, L)``, from keys ``(B, L, K)``."""
        gated = torch.tanh(self.project(keys)) * torch.sigmoid(self.gate(keys))
        return self.direction(gated).squeeze(-1)  # type: ignore[no-any-return]
