"""Task-specific scales of values: the TaSc family, and the plainest thing that could explain its gains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.types import Batch, DataSchema


class ValueScaling(nn.Module, ABC):
    """A signed number for each token, by which its value is multiplied before pooling: ``head(sum_i a_i s_i v_i)``.

    The attention stays what it was: a distribution, and what is reported. ``a_i s_i`` is another attribution.

    Source of the three TaSc variants: Chrysostomou and Aletras, ACL 2021, https://arxiv.org/abs/2105.02657, and their
    code.
    """

    @abstractmethod
    def make_layers(self, vocabulary_size: int, embedding_size: int) -> None:
        """Create what depends on the vocabulary and the size of the word embeddings."""

    def build(self, schema: DataSchema, embedding_size: int) -> None:
        """:meth:`make_layers` for these data.

        Raises:
            InputError: The data are not token ids.
        """
        if schema.vocabulary_size is None:
            raise InputError(f"{type(self).__name__} has a scale per word, but the data are features of instances.")
        self.make_layers(schema.vocabulary_size, embedding_size)

    @abstractmethod
    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Scales, shape ``(B, L)``, from word embeddings ``(B, L, E)`` and the ids in the batch."""


class LinTaSc(ValueScaling):
    """``s_i = u[x_i] * sum_d e_id``: one number per word."""

    def make_layers(self, vocabulary_size: int, embedding_size: int) -> None:
        """Create ``u``."""
        self.word = _uniform(vocabulary_size, 1)

    @override
    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return self.word(batch.inputs).squeeze(-1) * embeddings.sum(dim=-1)  # type: ignore[no-any-return]


class FeatTaSc(ValueScaling):
    """``s_i = sum_d U[x_i, d] * e_id``: one number per word and dimension."""

    def make_layers(self, vocabulary_size: int, embedding_size: int) -> None:
        """Create ``U``."""
        self.word = _uniform(vocabulary_size, embedding_size)

    @override
    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return (self.word(batch.inputs) * embeddings).sum(dim=-1)  # type: ignore[no-any-return]


class ConvTaSc(ValueScaling):
    """``s_i = sum_j ( <w_j, u[x_i] e_i> + b_j )``: filters of width 1 over scaled embeddings.

    Args:
        filters: Number of filters; 15 is published.

    Raises:
        InputError: ``filters`` is below 1.
    """

    def __init__(self, filters: int = 15) -> None:
        if filters < 1:
            raise InputError(f"ConvTaSc needs at least 1 filter, got {filters}.")
        super().__init__()
        self.filters = filters

    def make_layers(self, vocabulary_size: int, embedding_size: int) -> None:
        """Create ``u``, the ``w_j`` and the ``b_j``."""
        self.word = _uniform(vocabulary_size, 1)
        self.convolution = nn.Linear(embedding_size, self.filters)  # of width 1

    @override
    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return self.convolution(self.word(batch.inputs) * embeddings).sum(dim=-1)  # type: ignore[no-any-return]


class TypeScale(ValueScaling):
    """``s_i = t[x_i]``, from 1: one free number per word and nothing else, the control for the TaSc variants (ours)."""

    def make_layers(self, vocabulary_size: int, embedding_size: int) -> None:
        """Create ``t``."""
        self.word = nn.Embedding(vocabulary_size, 1)
        nn.init.ones_(self.word.weight)

    @override
    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return self.word(batch.inputs).squeeze(-1)  # type: ignore[no-any-return]


def _uniform(vocabulary_size: int, size: int) -> nn.Embedding:
    """Numbers a word, drawn uniformly from -1/sqrt(V) to 1/sqrt(V), as published."""
    table = nn.Embedding(vocabulary_size, size)
    bound = 1 / math.sqrt(vocabulary_size)
    with torch.no_grad():
        table.weight.uniform_(-bound, bound)
    return table
