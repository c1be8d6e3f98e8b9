"""Variants of texts as references to the texts' own positions, and keys and values that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from lightning_attn.types import Batch


@dataclass
class Variants:
    """R variants of T texts.

    Attributes:
        texts: T texts, cut to the longest, L positions, without their queries.
        row: Text of each variant, shape ``(R,)``.
        intact: Where a variant has what its text has, shape ``(R, L)``, bool.
        present: Where a variant has something, intact or overwritten, shape ``(R, L)``, bool.
        source: Column of what stands there, shape ``(R, L)``: the position's own, or L, the blank, where overwritten;
            any where nothing is present.
    """

    texts: Batch
    row: Tensor
    intact: Tensor
    present: Tensor
    source: Tensor

    @classmethod
    def from_kept(cls, texts: Batch, row: Tensor, keep: Tensor, shortens: bool) -> Variants:
        """Variants as the sweep asks for them.

        Args:
            texts: See :class:`Variants`.
            row: See :class:`Variants`.
            keep: True where the input stays as it is, shape ``(R, L)``.
            shortens: Whether the positions that are not kept disappear; else they are overwritten with the blank.
        """
        valid = texts.valid[row]
        intact = valid & keep
        columns = torch.arange(keep.shape[1], device=keep.device)
        if shortens:
            return cls(texts, row, intact, intact, columns.expand(keep.shape))
        return cls(texts, row, intact, valid, torch.where(intact, columns, keep.shape[1]))

    @property
    def places(self) -> Tensor:
        """Rows in a table of ``T * (L + 1)``, every text's columns and then its blank, shape ``(R, L)``."""
        return self.source + (self.row * (self.source.shape[1] + 1))[:, None]


@dataclass
class SharedVectors:
    """Keys or values at the positions of variants: a table without repetitions, and the row of each position in it.

    Attributes:
        table: U different keys or values, shape ``(U, H)``; a row belongs to one text only.
        places: Row in the table of each position, shape ``(R, L)``; any where the variant has nothing.
    """

    table: Tensor
    places: Tensor

    def pool(self, weights: Tensor) -> Tensor:
        """Sums, weighted by ``weights`` ``(R, L)``, 0 where the variant has nothing; shape ``(R, H)``."""
        return functional.embedding_bag(self.places, self.table, mode="sum", per_sample_weights=weights)


class KeyFastPath(ABC):
    """An encoder's keys of variants, computed from what the variants have in common.

    See :func:`lightning_attn.perturbation.fast_path.encoder_fast_path`.
    """

    @abstractmethod
    def keys(self, embeddings: Tensor, variants: Variants) -> SharedVectors:
        """The keys of the variants' positions.

        Args:
            embeddings: Of every position of the texts and, last, of the blank, shape ``(T, L + 1, E)``.
            variants: What to read.
        """


class LocalKeys(KeyFastPath):
    """Of an encoder that reads every position by itself: a variant's keys are its text's, and none is computed anew.

    Args:
        contextualise: The encoder's, see :meth:`Encoder.contextualise`.
    """

    def __init__(self, contextualise: Callable[[Tensor, Batch], Tensor]) -> None:
        self.contextualise = contextualise

    @override
    def keys(self, embeddings: Tensor, variants: Variants) -> SharedVectors:
        return SharedVectors(self.contextualise(embeddings, variants.texts).flatten(0, 1), variants.places)
