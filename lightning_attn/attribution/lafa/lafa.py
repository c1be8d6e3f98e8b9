"""Importance borrowed from other texts: `LAFA`, and the control that borrows from all of them, `Lexicon`."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.base import Attribution, get
from lightning_attn.attribution.lafa.index import NeighbourIndex
from lightning_attn.attribution.lafa.kernels import Kernel, Rbf, Words
from lightning_attn.attribution.lafa.reading import Reader, text_digests
from lightning_attn.attribution.lafa.selection import Nearest, Neighbours, Query, Selection
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch

Mix = Literal["normalised", "raw"]
_COMPARED = 1 << 24  # pairs of words compared at a time


@dataclass
class Borrowed:
    """Attributions of B texts and what they were made of; everything 0 on padding and special positions.

    Attributes:
        attributions: ``base + strength * lent``, shape ``(B, L)``.
        base: The text's own attributions, as they were mixed, shape ``(B, L)``.
        lent: What other texts lend, as it was mixed, shape ``(B, L)``.
        neighbours: The texts that lent; None where all texts did.
    """

    attributions: Tensor
    base: Tensor
    lent: Tensor
    neighbours: Neighbours | None

    @property
    def scores(self) -> Tensor:
        """Old name of ``attributions``."""
        warnings.warn("Borrowed.scores is now Borrowed.attributions.", DeprecationWarning, stacklevel=2)
        return self.attributions


class BorrowingAttribution(Attribution):
    """A text's own attributions, plus what other texts of an index lend to its words.

    The index says by its own base which attribution the text gets itself. What is lent depends on the token
    alone, so that every occurrence of a word in a text gets the same; with subwords, of the subword. Special tokens
    neither lend nor borrow.

    Args:
        index: An index of the network that is explained, or its folder.
        strength: lambda of the paper, the weight of what is lent, 0 or more.
        mix: ``normalised``: both sides are divided by their text's sum of absolute values first, so that ``strength``
            means the same for every text and kernel; or ``raw``, as in the paper.

    Raises:
        InputError: The index cannot be opened, or ``strength`` is below 0.
    """

    def __init__(self, index: NeighbourIndex | str | Path, strength: float = 1.0, mix: Mix = "normalised") -> None:
        if strength < 0:
            raise InputError(f"The strength of what is lent must be 0 or more, not {strength}.")
        if mix not in ("normalised", "raw"):
            raise InputError(f"Attributions can be mixed normalised or raw, not {mix!r}.")
        self.index = index if isinstance(index, NeighbourIndex) else NeighbourIndex.open(index)
        self.strength = strength
        self.mix = mix
        self.base = get(self.index.description.base, **self.index.description.options)
        #: Texts explained so far, and those of them that no other text lent anything.
        self.texts = 0
        self.alone = 0

    @override
    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        return self.borrow(network, batch, target).attributions

    def borrow(self, network: AttentionNetwork, batch: Batch, target: Tensor | None = None) -> Borrowed:
        """Attributions, and where they come from; arguments as in :meth:`Attribution.attribute`.

        Raises:
            InputError: The index belongs to another network.
        """
        self.index.check(network)
        batch = batch.padded()
        base, query = self._read(network, batch, target)
        lent, neighbours = self.lend(network, batch, query)
        alone = ~(lent != 0).any(dim=1) if neighbours is None else ~neighbours.present.any(dim=1)
        self.texts += len(batch)
        self.alone += int(alone.sum())
        if self.mix == "normalised":
            base, lent = _unit_sum(base), _unit_sum(lent)
        return Borrowed(base + self.strength * lent, base, lent, neighbours)

    @abstractmethod
    def lend(self, network: AttentionNetwork, batch: Batch, query: Query) -> tuple[Tensor, Neighbours | None]:
        """What is lent to each position, shape ``(B, L)``, 0 where it is not inner; and by whom, None for all."""

    def _read(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> tuple[Tensor, Query]:
        """The text's own attributions, and its vector."""
        base, reading = Reader(network, self.index.description.layer).read_along(self.base, batch, target)
        explained = reading.logits.argmax(dim=-1) if target is None else target
        return base, Query(reading.vectors, text_digests(batch), explained, batch.index)


class LAFA(BorrowingAttribution):
    """Locally aggregated feature attribution: ``M(x)_t + lambda E(w_t)``, E from the texts nearest to x.

    ``E(w) = mean_i (1 / T_i) sum_k m_ik kernel(w, w_ik)`` over the neighbours i, with T_i tokens w_ik of base m_ik.
    Neighbours are training texts; they are near by a hidden layer of the network itself. A text without any neighbour
    within the cut-off keeps its own attributions, and is counted in ``alone``. With a signed base, such as
    ``gradient_x_input`` with ``attention_fixed`` false, everything is signed.

    Source: Zhang, Wang, Jiang and Song, NAACL 2022, https://arxiv.org/abs/2204.10893, section 3. How a text becomes one
    vector, and what happens to special tokens, is not stated there; both are reconstructed. Mixing parts of unit sum
    is ours.

    Args:
        index: See :class:`BorrowingAttribution`.
        kernel: How alike two words are; None means ``Rbf()``.
        selection: Which texts are neighbours; None means ``Nearest()``.
        strength: See :class:`BorrowingAttribution`.
        mix: See :class:`BorrowingAttribution`.

    Raises:
        InputError: The index cannot be opened, or an argument is out of range.
    """

    def __init__(
        self,
        index: NeighbourIndex | str | Path,
        kernel: Kernel | None = None,
        selection: Selection | None = None,
        strength: float = 1.0,
        mix: Mix = "normalised",
    ) -> None:
        super().__init__(index, strength, mix)
        self.kernel = kernel or Rbf()
        self.selection = selection or Nearest()

    def lend(self, network: AttentionNetwork, batch: Batch, query: Query) -> tuple[Tensor, Neighbours | None]:
        """What the neighbours lend; see :meth:`BorrowingAttribution.lend`."""
        index = self.index.to(batch.device)
        neighbours = self.selection.select(index, query)
        with torch.no_grad():
            theirs, weights = _lent_words(network, index, neighbours)
            own, places = _distinct(network, batch.inputs, batch.inner)
            step = max(1, _COMPARED // max(1, own.ids.shape[1] * theirs.ids.shape[1]))
            parts = [slice(start, start + step) for start in range(0, len(batch), step)]
            importance = torch.cat(
                [
                    torch.einsum("bnm,bm->bn", self.kernel(own.select(part), theirs.select(part)), weights[part])
                    for part in parts
                ]
            )
        return torch.where(batch.inner, importance.gather(1, places), 0.0), neighbours


class Lexicon(BorrowingAttribution):
    """``M(x)_t + lambda G(w_t)``, G(w) the mean attribution of the word over all training texts; 0 for an unseen one.

    The control that LAFA has to beat: what it borrows, without any neighbourhood.
    """

    def lend(self, network: AttentionNetwork, batch: Batch, query: Query) -> tuple[Tensor, Neighbours | None]:
        """What all training texts lend; see :meth:`BorrowingAttribution.lend`."""
        lexicon = self.index.to(batch.device).lexicon
        ids = batch.inputs.clamp(max=len(lexicon) - 1)
        return torch.where(batch.inner & (batch.inputs < len(lexicon)), lexicon[ids], 0.0), None


@dataclass
class NeighbourText:
    """A training text that is near another text.

    Attributes:
        text: Its tokens as the network knows them, joined by spaces.
        prediction: Name of the class that the network takes it for.
        distance: To the other text, in the layer that the index was made of.
    """

    text: str
    prediction: str
    distance: float


def neighbour_texts(
    index: NeighbourIndex,
    neighbours: Neighbours,
    show: Callable[[Iterable[int]], list[str]],
    class_names: Sequence[str],
) -> list[list[NeighbourText]]:
    """The neighbours of each of B texts, the nearest first.

    Args:
        index: Where they are rows of.
        neighbours: Of B texts.
        show: From token ids to what is read, such as :meth:`TextProcessor.tokens`.
        class_names: In the order of the logits.
    """
    by_text = []
    for rows, distances in zip(neighbours.rows.tolist(), neighbours.distances.tolist(), strict=True):
        texts = []
        for row, distance in zip(rows, distances, strict=True):
            if row >= 0:
                ids = index.tokens[index.offsets[row] : index.offsets[row + 1]].tolist()
                texts.append(NeighbourText(" ".join(show(ids)), class_names[int(index.predicted[row])], distance))
        by_text.append(texts)
    return by_text


def _unit_sum(attributions: Tensor) -> Tensor:
    """Attributions over their text's sum of absolute values; all 0 stays so."""
    total = attributions.abs().sum(dim=1, keepdim=True)
    return attributions / total.where(total > 0, 1.0)


def _lent_words(network: AttentionNetwork, index: NeighbourIndex, neighbours: Neighbours) -> tuple[Words, Tensor]:
    """The distinct words of each text's neighbours, m at most, and what stands before their kernel, ``(B, m)``."""
    present = neighbours.present
    texts, _ = present.nonzero(as_tuple=True)
    rows = neighbours.rows[present]
    lengths = index.lengths(rows)
    share = 1.0 / (lengths.clamp(min=1) * present.sum(dim=1)[texts])
    # One entry per token of a neighbour, all neighbours of all texts one after another.
    pair = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), lengths)
    start = index.offsets[rows] - (lengths.cumsum(0) - lengths)
    place = start[pair] + torch.arange(len(pair), device=rows.device)
    ids = index.tokens[place].long()
    owner, number, position, width = _number_words(texts[pair], ids, len(present))
    flat = torch.zeros(len(present) * width, device=rows.device)
    flat.index_add_(0, position, index.scores[place] * share[pair])
    return _words(network, owner, number, width, len(present)), flat.view(len(present), width)


def _distinct(network: AttentionNetwork, ids: Tensor, inner: Tensor) -> tuple[Words, Tensor]:
    """The distinct words of each text, and which of them stands at each position, shape ``(B, L)``."""
    texts, _ = inner.nonzero(as_tuple=True)
    owner, number, position, width = _number_words(texts, ids[inner], len(ids))
    places = torch.zeros_like(ids)
    places[inner] = position % width
    return _words(network, owner, number, width, len(ids)), places


def _number_words(texts: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Number the distinct words of each text.

    Args:
        texts: Text of each of K tokens, shape ``(K,)``.
        ids: Their ids, shape ``(K,)``.
        count: B.

    Returns:
        Where each distinct word stands among ``B * width`` places, and its id; the place of each token; the width.
    """
    base = int(ids.max()) + 1 if len(ids) else 1
    keys, inverse = torch.unique(texts * base + ids, return_inverse=True)
    owner = keys // base
    sizes = torch.bincount(owner, minlength=count)
    width = max(1, int(sizes.max()) if len(sizes) else 1)
    within = torch.arange(len(keys), device=keys.device) - (sizes.cumsum(0) - sizes)[owner]
    places = owner * width + within
    return places, keys % base, places[inverse], width


def _words(network: AttentionNetwork, places: Tensor, ids: Tensor, width: int, count: int) -> Words:
    flat = ids.new_full((count * width,), -1)
    flat[places] = ids
    table = flat.view(count, width)
    return Words(table, _vectors(network, table))


def _vectors(network: AttentionNetwork, ids: Tensor) -> Tensor:
    """Word embeddings of ids, shape ``(B, n, E)``: what the network's embedding layer gives for the word alone."""
    batch = Batch(
        inputs=ids.clamp(min=0),
        valid=torch.ones_like(ids, dtype=torch.bool),
        special=torch.zeros_like(ids, dtype=torch.bool),
        target=ids.new_zeros(len(ids)),
        index=ids.new_zeros(len(ids)),
    )
    return network.embed(batch).flatten(2).float()
