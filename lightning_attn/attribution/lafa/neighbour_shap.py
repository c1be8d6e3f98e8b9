"""GradientShap with training texts near the text as its references: `NeighbourShap`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.averaged_gradients import GradientShap, SquaredAttribution
from lightning_attn.attribution.lafa.index import NeighbourIndex
from lightning_attn.attribution.lafa.reading import Reader, text_digests
from lightning_attn.attribution.lafa.selection import Nearest, Query, Selection
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch


class NeighbourShap(SquaredAttribution):
    """GradientShap whose references are the word embeddings of neighbours, taken in turn.

    A neighbour is laid over the text word by word; where it has no word any more, and for a text without neighbours,
    the reference is zero. "SHAP + neighbours" of Zhang et al., NAACL 2022, https://arxiv.org/abs/2204.10893; how a
    reference is made of a text of another length is not stated there, and reconstructed.

    Args:
        index: An index of the network that is explained, or its folder.
        selection: Which texts are neighbours; None means ``Nearest()``.
        samples: Number of points.
        seed: Another seed gives other points.
        max_tokens: Bound on positions in one pass, padding included.

    Raises:
        InputError: The index cannot be opened, or an argument is out of range.
    """

    def __init__(
        self,
        index: NeighbourIndex | str | Path,
        selection: Selection | None = None,
        samples: int = 25,
        seed: int = 0,
        max_tokens: int = 16384,
    ) -> None:
        self.index = index if isinstance(index, NeighbourIndex) else NeighbourIndex.open(index)
        self.selection = selection or Nearest()
        self.sampling = (samples, seed, max_tokens)

    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`SquaredAttribution.elements`.

        Raises:
            InputError: The index belongs to another network.
        """
        self.index.check(network)
        reading = Reader(network, self.index.description.layer).read(batch)
        explained = reading.logits.argmax(dim=-1) if target is None else target
        index = self.index.to(batch.device)
        query = Query(reading.vectors, text_digests(batch), explained, batch.index)
        rows = self.selection.select(index, query).rows
        return _FromTexts(network, index, rows, *self.sampling).elements(network, batch, explained)


class _FromTexts(GradientShap):
    """References are the texts at ``rows`` ``(B, M)`` of an index, -1 for none."""

    def __init__(
        self, network: AttentionNetwork, index: NeighbourIndex, rows: Tensor, samples: int, seed: int, max_tokens: int
    ) -> None:
        super().__init__(samples, seed, max_tokens)
        self.network = network
        self.index = index
        self.rows = rows

    @override
    def for_rows(self, rows: Tensor) -> _FromTexts:
        return _FromTexts(self.network, self.index, self.rows[rows], self.samples, self.seed, self.max_tokens)

    def reference(self, embeddings: Tensor, batch: Batch, sample: int) -> Tensor:
        """The embeddings of one neighbour, shape ``(B, L, E)``; see :meth:`GradientShap.reference`."""
        count = (self.rows >= 0).sum(dim=1)
        row = self.rows.gather(1, (sample % count.clamp(min=1))[:, None]).squeeze(1)
        text = row.clamp(min=0)
        place = batch.inner.long().cumsum(dim=1) - 1
        covered = batch.inner & (row >= 0)[:, None] & (place < self.index.lengths(text)[:, None])
        where = (self.index.offsets[text][:, None] + place).masked_fill(~covered, 0)
        ids = self.index.tokens[where].long().masked_fill(~covered, 0)
        with torch.no_grad():
            theirs = self.network.embed(batch.replace(inputs=ids))
        shape = covered.view(*covered.shape, *[1] * (embeddings.dim() - 2))
        return torch.where(shape, theirs, torch.zeros_like(embeddings))
