"""Scorers that read keys alone, or not even these: additive, dot, gated, uniform."""

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


class DotAttention(Attention):
    """``s_i = u . k_i / sqrt(K)`` with a learned ``u`` and no bias, the ``dot`` attention of Jain and Wallace.

    Source: Vaswani et al., NeurIPS 2017, https://arxiv.org/abs/1706.03762, equation 1, with one learned query; as in
    Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186.
    """

    def make_layers(self, key_size: int) -> None:
        """Create ``u``."""
        self.query = nn.Linear(key_size, 1, bias=False)

    def score(self, keys: Tensor) -> Tensor:
        """Scores, shape ``(B, L)``, from keys ``(B, L, K)``."""
        return self.query(keys).squeeze(-1) / keys.shape[-1] ** 0.5  # type: ignore[no-any-return]


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


class KeylessAttention(Attention):
    """Scores positions without looking at their keys or the query, so it stands in any network and learns nothing.

    Every position scores alike; a subclass that knows better overrides :meth:`raw_scores`.

    Args:
        temperature: See :class:`AttentionLayer`.
        attend_special: See :class:`AttentionLayer`.
    """

    def make_layers(self, key_size: int, query_size: int | None = None) -> None:
        """Nothing: there are no layers."""

    def score(self, keys: Tensor, query: Tensor | None = None) -> Tensor:
        """Zeros, shape ``(B, L)``, for keys ``(B, L, K)``."""
        return torch.zeros_like(keys[..., 0])


class UniformAttention(KeylessAttention):
    """``a_i = 1 / n``: the head gets the mean of the values. It has no parameters.

    The control arm of Wiegreffe and Pinter: a network that does as well without learned weights says nothing about
    whether they explain. The scorer's part of the encoder (all of it, with local values) gets no gradient.

    Source: Wiegreffe and Pinter, EMNLP 2019, https://arxiv.org/abs/1908.04626, section 3.2.

    Args:
        attend_special: See :class:`AttentionLayer`.
    """

    def __init__(self, attend_special: bool = False) -> None:
        super().__init__(attend_special=attend_special)
