"""Attention that does not read the keys, and the simplest of it: every position counts the same."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.attention.base import Attention
from lightning_attn.attention.query import QueryAttention


class KeylessAttention(Attention, QueryAttention):
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
