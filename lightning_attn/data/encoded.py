"""Tokenised texts as flat arrays: `Encoded`, and the data set that makes batches of them, `EncodedDataset`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_attn.types import Batch

Array = npt.NDArray[Any]


@dataclass
class Encoded:
    """N tokenised texts, their T tokens one after another.

    Attributes:
        ids: Token ids, shape ``(T,)``, int32.
        offsets: Text i holds the tokens ``offsets[i]`` to ``offsets[i + 1]``, shape ``(N + 1,)``, int64.
        special: True on [CLS], [SEP], ``<s>``, ``</s>``, shape ``(T,)``, bool.
        words: Position in its text of the word a token comes from, -1 on special tokens, shape ``(T,)``, int32.
        truncated: Number of texts that were longer than the maximum and lost their end.
        segments: Token types of pairs that are read as one, shape ``(T,)``, int8; None for single texts.
        sides: Which text of its pair a token is of, 0 or 1, -1 on special tokens, shape ``(T,)``, int8; None for
            single texts. The tokenizers of models without token types give all tokens one type.
    """

    ids: Array
    offsets: Array
    special: Array
    words: Array
    truncated: int = 0
    segments: Array | None = None
    sides: Array | None = None

    def __len__(self) -> int:
        """Number of texts N."""
        return len(self.offsets) - 1


def concatenate(parts: Sequence[Encoded]) -> Encoded:
    """Several lots of texts as one."""
    lengths = [np.diff(part.offsets) for part in parts]
    return Encoded(
        ids=np.concatenate([part.ids for part in parts]),
        offsets=offsets_of(np.concatenate(lengths)),
        special=np.concatenate([part.special for part in parts]),
        words=np.concatenate([part.words for part in parts]),
        truncated=sum(part.truncated for part in parts),
        segments=_together([part.segments for part in parts]),
        sides=_together([part.sides for part in parts]),
    )


def _together(parts: Sequence[Array | None]) -> Array | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None


def offsets_of(lengths: Iterable[int] | Array) -> Array:
    """Where texts of these lengths, shape ``(N,)``, begin and end when they are laid out flat, shape ``(N + 1,)``."""
    counted = np.asarray(lengths if isinstance(lengths, np.ndarray) else list(lengths), dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), counted.cumsum()])


class SplitDataset(Dataset[Batch], ABC):
    """A split that is asked for several rows at once and gives a padded batch; what the data loaders rely on."""

    @property
    @abstractmethod
    def lengths(self) -> Array:
        """Tokens or instances of each example, shape ``(N,)``: what batches are bucketed by."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def __getitem__(self, rows: int | Sequence[int]) -> Batch:
        """The examples at ``rows``, padded to the longest of them."""


class EncodedDataset(SplitDataset):
    """A split of tokenised texts; asked for several rows at once, it gives a padded `Batch`.

    The arrays may be memory-mapped. Nothing loops over tokens: a batch is gathered by one fancy index.

    Args:
        ids: Token ids of all texts, shape ``(T,)``.
        offsets: Where each of the N texts begins and ends in ``ids``, shape ``(N + 1,)``.
        special: True on boundary tokens, shape ``(T,)``, bool.
        labels: Class indices, shape ``(N,)``, int64; or one 0/1 column per class, shape ``(N, C)``, float32.
        pad_id: Token id that fills padding.
        evidence: Importance of each token in [0, 1], NaN where unknown, shape ``(T,)``; None if the data has none.
        query_ids: Token ids of all queries, shape ``(Q,)``; None for single texts.
        query_offsets: Where each query begins and ends, shape ``(N + 1,)``.
        segments: Token types of pairs that are read as one, shape ``(T,)``; None for single texts.
    """

    def __init__(
        self,
        ids: Array,
        offsets: Array,
        special: Array,
        labels: Array,
        pad_id: int = 0,
        evidence: Array | None = None,
        query_ids: Array | None = None,
        query_offsets: Array | None = None,
        segments: Array | None = None,
    ) -> None:
        self.ids = ids
        self.offsets = offsets
        self.special = special
        self.labels = labels
        self.pad_id = pad_id
        self.evidence = evidence
        self.query_ids = query_ids
        self.query_offsets = query_offsets
        self.segments = segments

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.labels)

    @property
    def lengths(self) -> Array:
        """Tokens of each text, shape ``(N,)``."""
        return np.diff(self.offsets)

    def __getitem__(self, rows: int | Sequence[int]) -> Batch:
        """The texts at ``rows`` as a batch padded to its longest; one row alone (overfit_batches) is a batch of one.

        ``evidence`` is NaN on padding and on boundary tokens: nobody judged them.
        """
        numbers = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        source, valid = _gather(self.offsets, numbers)
        query = query_valid = None
        if self.query_ids is not None and self.query_offsets is not None:
            where, present = _gather(self.query_offsets, numbers)
            query = _tensor(np.where(present, self.query_ids[where], self.pad_id).astype(np.int64))
            query_valid = _tensor(present)
        return Batch(
            inputs=_tensor(np.where(valid, self.ids[source], self.pad_id).astype(np.int64)),
            valid=_tensor(valid),
            special=_tensor(valid & self.special[source]),
            target=_tensor(self.labels[numbers]),
            index=_tensor(numbers),
            evidence=None
            if self.evidence is None
            else _tensor(np.where(valid, self.evidence[source], np.float32(np.nan))),
            query=query,
            query_valid=query_valid,
            segments=None
            if self.segments is None
            else _tensor(np.where(valid, self.segments[source], 0).astype(np.int64)),
        )


def _gather(offsets: Array, rows: Array) -> tuple[Array, Array]:
    """For each position of the padded batch: where its token stands in the flat array, and whether there is one."""
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    positions = np.arange(lengths.max(initial=0))
    valid = positions < lengths[:, None]
    return np.where(valid, starts[:, None] + positions, 0), valid


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
