"""Attention over a text given a query: the base class and the two published scorers."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from lightning_attn.attention.base import AttentionLayer
from lightning_attn.errors import InputError
from lightning_attn.types import Batch


class QueryAttention(AttentionLayer):
    """Scores positions by their keys and the vector of the query.

    Args:
        temperature: See :class:`AttentionLayer`.
        attend_special: See :class:`AttentionLayer`.
    """

    @abstractmethod
    def make_layers(self, key_size: int, query_size: int) -> None:
        """Create the scorer's layers for keys and queries of so many numbers; the network calls it."""

    @abstractmethod
    def score(self, keys: Tensor, query: Tensor) -> Tensor:
        """Unnormalised scores, shape ``(B, L)``, from keys ``(B, L, K)`` and queries ``(B, Q)``."""

    def raw_scores(self, keys: Tensor, batch: Batch) -> Tensor:
        """See :meth:`score`; the query is the batch's ``query_vector``.

        Raises:
            InputError: The network in which the layer stands reads no query.
        """
        if batch.query_vector is None:
            raise InputError(f"{type(self).__name__} needs a network that reads a query, such as PairedNetwork.")
        return self.score(keys, batch.query_vector)


class AdditiveQueryAttention(QueryAttention):
    """``s_i = u . tanh(W1 k_i + b1 + W2 z + b2)``, the ``tanh`` attention of Jain and Wallace for pairs.

    Source: Bahdanau et al., ICLR 2015, https://arxiv.org/abs/1409.0473; as in Jain and Wallace, NAACL 2019,
    https://arxiv.org/abs/1902.10186: ``u`` has no bias.

    Args:
        size: Rows of ``W1`` and ``W2``; None means half the key size, as in :class:`AdditiveAttention`.
        temperature: See :class:`QueryAttention`.
        attend_special: See :class:`QueryAttention`.
    """

    def __init__(self, size: int | None = None, temperature: float = 1.0, attend_special: bool = False) -> None:
        super().__init__(temperature, attend_special)
        self.size = size

    def make_layers(self, key_size: int, query_size: int) -> None:
        """Create ``W1, b1``, ``W2, b2`` and ``u``."""
        size = self.size or max(1, key_size // 2)
        self.project = nn.Linear(key_size, size)
        self.project_query = nn.Linear(query_size, size)
        self.direction = nn.Linear(size, 1, bias=False)

    def score(self, keys: Tensor, query: Tensor) -> Tensor:
        """Scores, shape ``(B, L)``, from keys ``(B, L, K)`` and queries ``(B, Q)``."""
        hidden = torch.tanh(self.project(keys) + self.project_query(query)[:, None])
        return self.direction(hidden).squeeze(-1)  # type: ignore[no-any-return]


class DotQueryAttention(QueryAttention):
    """``s_i = k_i . z / sqrt(K)``, the ``dot`` attention of Jain and Wallace for pairs; it has no parameters.

    Source: Vaswani et al., NeurIPS 2017, https://arxiv.org/abs/1706.03762, equation 1, as in Jain and Wallace, NAACL
    2019, https://arxiv.org/abs/1902.10186.
    """

    def make_layers(self, key_size: int, query_size: int) -> None:
        """Check that keys and queries have the same size; there are no layers.

        Raises:
            InputError: They have not.
        """
        if key_size != query_size:
            raise InputError(
                f"DotQueryAttention multiplies keys and query, but the text's encoder gives {key_size} numbers and the "
                f"query's {query_size}: give both the same sizes, or use AdditiveQueryAttention."
            )

    def score(self, keys: Tensor, query: Tensor) -> Tensor:
        """Scores, shape ``(B, L)``, from keys ``(B, L, K)`` and queries ``(B, K)``."""
        return torch.einsum("blk,bk->bl", keys, query) / math.sqrt(keys.shape[-1])
