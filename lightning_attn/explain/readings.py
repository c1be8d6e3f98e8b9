"""Texts as a network reads them, with what it predicts: `Reading`; by class: `ClassReader`."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.data.encoded import Encoded
from lightning_attn.data.processor import PairProcessor, TextProcessor
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch


@dataclass
class Reading:
    """B texts, read.

    Attributes:
        batch: What the network reads.
        target: Column of the logits that belongs to what is predicted, shape ``(B,)``, int64.
        predictions: What is predicted, by name.
        probabilities: Of each text the probabilities of what might be predicted, by name.
        tokens: Of each text what its inner positions hold.
        sides: Of each text which text of its pair they are of, 0 the text and 1 the query; None for single texts.
    """

    batch: Batch
    target: Tensor
    predictions: list[str]
    probabilities: list[dict[str, float]]
    tokens: list[list[str]]
    sides: list[list[int] | None]


class Reader(ABC):
    """Reads texts for a network.

    Args:
        network: In evaluation mode.
        processor: That belongs to it.
    """

    def __init__(self, network: AttentionNetwork, processor: TextProcessor) -> None:
        self.network = network
        self.processor = processor

    @abstractmethod
    def check(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        """Look at all texts before the first is read; warns of what is cut off.

        Raises:
            InputError: Queries are missing or out of place.
        """

    @abstractmethod
    def read(self, texts: Sequence[str], queries: Sequence[str] | None, device: torch.device) -> Reading:
        """Some of these texts."""


class ClassReader(Reader):
    """The most probable class of each text."""

    def check(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        """See :meth:`Reader.check`."""
        pairs = self.network.reads_query or isinstance(self.processor, PairProcessor)
        if pairs and queries is None:
            raise InputError("The checkpoint's network reads a text and a query: give the query too (--query).")
        if not pairs and queries is not None:
            raise InputError("The checkpoint's network reads single texts: leave the query out.")
        if cut := self._encoded(texts, queries).truncated:
            limit = self.processor.max_length
            warnings.warn(
                f"{cut:,} of {len(texts):,} texts exceed {limit} tokens; their end is not read.", stacklevel=3
            )

    def read(self, texts: Sequence[str], queries: Sequence[str] | None, device: torch.device) -> Reading:
        """See :meth:`Reader.read`."""
        batch = self.processor.batch(texts, queries).to(device)
        schema = self.network.schema
        with torch.no_grad():
            probabilities = schema.probabilities(self.network(batch).logits)
        target = probabilities.argmax(dim=-1)
        names = schema.names
        tokens: list[list[str]] = []
        sides: list[list[int] | None] = []
        for row, text in enumerate(texts):
            shown = batch.inner[row, : int(batch.valid[row].sum())].tolist()
            surface, side = self._surface(text, None if queries is None else queries[row])
            tokens.append([token for token, keep in zip(surface, shown, strict=True) if keep])
            sides.append(None if side is None else [one for one, keep in zip(side, shown, strict=True) if keep])
        return Reading(
            batch,
            target,
            [schema.named_prediction(row) for row in probabilities],
            [dict(zip(names, row, strict=True)) for row in probabilities.tolist()],
            tokens,
            sides,
        )

    def _encoded(self, texts: Sequence[str], queries: Sequence[str] | None) -> Encoded:
        if isinstance(self.processor, PairProcessor) and queries is not None:
            return self.processor.encode_pairs(texts, queries)
        return self.processor.encode(texts)

    def _surface(self, text: str, query: str | None) -> tuple[list[str], list[int] | None]:
        """The pieces of one text, and which text of a pair each is of."""
        if not isinstance(self.processor, PairProcessor) or query is None:
            return self.processor.surface(text), None
        sides = self.processor.encode_pairs([text], [query]).sides
        assert sides is not None
        return self.processor.surface_pair(text, query), sides.tolist()
