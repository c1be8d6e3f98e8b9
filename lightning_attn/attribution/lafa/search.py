"""Which training texts are near: exact search, and FAISS for collections that are too large for it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lightning_attn.errors import InputError

if TYPE_CHECKING:
    from lightning_attn.attribution.lafa.index import NeighbourIndex

Classes = Literal["any", "same", "other"]
_SPARE = 8  # candidates beyond those asked for: products of matrices order near ties wrongly
_BLOCK = 1 << 24  # distances computed at a time


@dataclass
class Query:
    """Texts whose neighbours are asked for.

    Attributes:
        vectors: Shape ``(B, D)``, float32.
        digests: See :func:`text_digests`, shape ``(B,)``: a text is no neighbour of its own copy.
        classes: Class that is explained, shape ``(B,)``.
        index: ``Batch.index``, shape ``(B,)``, for what is drawn at random.
    """

    vectors: Tensor
    digests: Tensor
    classes: Tensor
    index: Tensor


@dataclass
class Neighbours:
    """Up to M neighbours of each of B texts, the nearest first.

    Attributes:
        rows: Rows of the index, -1 where there are fewer, shape ``(B, M)``, int64.
        distances: Shape ``(B, M)``, infinite where there are fewer.
    """

    rows: Tensor
    distances: Tensor

    @property
    def found(self) -> Tensor:
        """Where there is a neighbour, shape ``(B, M)``, bool."""
        return self.rows >= 0


def allowed(index: NeighbourIndex, query: Query, classes: Classes, rows: Tensor) -> Tensor:
    """Which texts may be neighbours: no copy of the text itself, and of a class that is asked for.

    Args:
        index: Its classes are those that the network predicts.
        query: B texts.
        classes: ``any``, or those of the ``same`` class as the text's explained one, or of ``other`` classes.
        rows: Rows of the index, shape ``(B, K)``, or ``(1, K)`` for the same ones for all.

    Returns:
        Shape ``(B, K)``, bool.
    """
    fits = index.digests[rows] != query.digests[:, None]
    if classes == "any":
        return fits
    same = index.predicted[rows] == query.classes[:, None]
    return fits & (same if classes == "same" else ~same)


class Search(ABC):
    """Finds the rows that are nearest; distances are computed again, exactly, by :func:`nearest`."""

    @abstractmethod
    def rows(self, index: NeighbourIndex, vectors: Tensor, count: int) -> Tensor:
        """About the ``count`` rows nearest to each of B vectors, any texts, shape ``(B, count)``, -1 for none."""

    def candidates(self, index: NeighbourIndex, query: Query, count: int, classes: Classes) -> Tensor:
        """Rows of allowed texts among which the ``count`` nearest are, shape ``(B, K)``, -1 where there are fewer."""
        wanted = min(len(index), count + _SPARE)
        while True:
            rows = self.rows(index, query.vectors, wanted)
            fits = (rows >= 0) & allowed(index, query, classes, rows.clamp(min=0))
            # Seldom are so many of them copies of the text, or of another class, that it takes a second search.
            if wanted == len(index) or bool((fits.sum(dim=1) >= count).all()):
                return rows.masked_fill(~fits, -1)
            wanted = min(len(index), 4 * wanted)


class Exact(Search):
    """Every distance, in blocks, by products of matrices."""

    def rows(self, index: NeighbourIndex, vectors: Tensor, count: int) -> Tensor:
        """See :meth:`Search.rows`."""
        step = max(count, _BLOCK // max(1, len(vectors)))
        values: list[Tensor] = []
        rows: list[Tensor] = []
        for start in range(0, len(index), step):
            block = slice(start, min(start + step, len(index)))
            # The text's own norm is the same for all.
            distances = torch.addmm(index.norms[block], vectors, index.vectors[block].T, alpha=-2)
            best, places = distances.topk(min(count, distances.shape[1]), dim=1, largest=False)
            values.append(best)
            rows.append(places + start)
        if len(rows) == 1:
            return rows[0]
        places = torch.cat(values, dim=1).topk(count, dim=1, largest=False).indices
        return torch.cat(rows, dim=1).gather(1, places)


class Faiss(Search):
    """Inverted lists of FAISS (``pip install lightning-attn-faithful[faiss]``), for millions of texts.

    Approximate: a neighbour is missed if it lies in none of the lists that are looked through.

    Args:
        lists: Number of lists; None means the square root of the number of texts.
        probes: Lists that are looked through for a text.

    Raises:
        InputError: FAISS is not installed.
    """

    def __init__(self, lists: int | None = None, probes: int = 32) -> None:
        self.lists = lists
        self.probes = probes
        self._faiss = _import_faiss()
        self._made: tuple[NeighbourIndex, Any] | None = None

    def rows(self, index: NeighbourIndex, vectors: Tensor, count: int) -> Tensor:
        """See :meth:`Search.rows`."""
        found = self._make(index).search(vectors.cpu().numpy(), count)[1]
        return torch.from_numpy(found).to(vectors.device)

    def _make(self, index: NeighbourIndex) -> Any:
        if self._made is None or self._made[0] is not index:
            lists = max(1, self.lists or round(len(index) ** 0.5))
            vectors = index.vectors.cpu().numpy()
            made = self._faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat")
            made.train(vectors)
            made.add(vectors)
            made.nprobe = self.probes
            self._made = index, made
        return self._made[1]


def _import_faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        raise InputError(
            "The search by FAISS needs the package faiss-cpu: pip install faiss-cpu, or search exactly."
        ) from error


def nearest(
    index: NeighbourIndex, query: Query, search: Search, count: int, cutoff: float, classes: Classes
) -> Neighbours:
    """The nearest allowed texts within a distance; ties go to the earlier row.

    Args:
        index: N texts.
        query: B texts.
        search: Finds the candidates.
        count: M, most neighbours of a text.
        cutoff: Largest distance of a neighbour.
        classes: See :func:`allowed`.

    Returns:
        ``min(M, N)`` places for each text.
    """
    rows = search.candidates(index, query, count, classes)
    rows = rows.sort(dim=1).values
    distances = (index.vectors[rows.clamp(min=0)] - query.vectors[:, None]).norm(dim=-1)
    distances = distances.masked_fill((rows < 0) | (distances > cutoff), torch.inf)
    distances, order = distances.sort(dim=1, stable=True)
    rows = rows.gather(1, order).masked_fill(distances.isinf(), -1)
    return Neighbours(rows[:, :count], distances[:, :count])
