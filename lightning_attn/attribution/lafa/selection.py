"""Which training texts count as neighbours: `Selection`, by exact `Search`, or by FAISS where texts are too many."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.lafa.index import NeighbourIndex
from lightning_attn.errors import InputError
from lightning_attn.ops.randomness import uniform

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
    def present(self) -> Tensor:
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

    @override
    def rows(self, index: NeighbourIndex, vectors: Tensor, count: int) -> Tensor:
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
        self._cache: tuple[NeighbourIndex, Any] | None = None

    @override
    def rows(self, index: NeighbourIndex, vectors: Tensor, count: int) -> Tensor:
        rows = self._make(index).search(vectors.cpu().numpy(), count)[1]
        return torch.from_numpy(rows).to(vectors.device)

    def _make(self, index: NeighbourIndex) -> Any:
        if self._cache is None or self._cache[0] is not index:
            lists = max(1, self.lists or round(len(index) ** 0.5))
            vectors = index.vectors.cpu().numpy()
            lists_index = self._faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat")
            lists_index.train(vectors)
            lists_index.add(vectors)
            lists_index.nprobe = self.probes
            self._cache = index, lists_index
        return self._cache[1]


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


class Selection(ABC):
    """Chooses up to M texts of an index for each text.

    Args:
        max_neighbours: M, at least 1; 10 in the paper of LAFA.

    Raises:
        InputError: ``max_neighbours`` is below 1.
    """

    def __init__(self, max_neighbours: int = 10) -> None:
        if max_neighbours < 1:
            raise InputError(f"{type(self).__name__} needs max_neighbours of at least 1, not {max_neighbours}.")
        self.max_neighbours = max_neighbours

    @abstractmethod
    def select(self, index: NeighbourIndex, query: Query) -> Neighbours:
        """The neighbours of B texts; a text is never its own neighbour.

        Raises:
            InputError: The index does not have what is asked for.
        """


class Nearest(Selection):
    """The nearest texts within a cut-off.

    The cut-off is a quantile of the distances of random pairs of training texts. Zhang et al. (2022) name 0.05 in one
    place and 0.39 in another, and do not say what their distances are of; both are a choice here.

    Args:
        max_neighbours: See :class:`Selection`.
        quantile: In (0, 1]: share of random pairs that are nearer than the cut-off; None cuts nothing off.
        classes: ``any``; or ``same``, texts that the network takes for the class that is explained; or ``other``.
        search: How they are found; None means ``Exact()``.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        max_neighbours: int = 10,
        quantile: float | None = 0.05,
        classes: Classes = "any",
        search: Search | None = None,
    ) -> None:
        super().__init__(max_neighbours)
        if quantile is not None and not 0 < quantile <= 1:
            raise InputError(f"The quantile of the cut-off must be in (0, 1], not {quantile}.")
        if classes not in ("any", "same", "other"):
            raise InputError(f"Neighbours can be of any, same or other classes, not of {classes!r}.")
        self.quantile = quantile
        self.classes: Classes = classes
        self.search = search or Exact()
        self._cutoff: tuple[NeighbourIndex, float] | None = None

    def select(self, index: NeighbourIndex, query: Query) -> Neighbours:
        """See :meth:`Selection.select`.

        Raises:
            InputError: The network takes all texts of the index for one class, and ``classes`` is not ``any``.
        """
        if self._cutoff is None or self._cutoff[0] is not index:
            if self.classes != "any" and bool((index.predicted == index.predicted[0]).all()):
                raise InputError(
                    f"The network takes all {len(index):,} texts of the index {index.path} for the same class, so "
                    f"that neighbours cannot be chosen by class: set classes to any, not {self.classes}."
                )
            self._cutoff = index, index.cutoff(self.quantile)
        return nearest(index, query, self.search, self.max_neighbours, self._cutoff[1], self.classes)


class RandomTexts(Selection):
    """Any texts, drawn with replacement by ``Batch.index``: the control that says whether nearness matters.

    Args:
        max_neighbours: See :class:`Selection`.
        seed: Another seed gives other texts.
    """

    def __init__(self, max_neighbours: int = 10, seed: int = 0) -> None:
        super().__init__(max_neighbours)
        self.seed = seed

    @override
    def select(self, index: NeighbourIndex, query: Query) -> Neighbours:
        """A copy of the text itself is dropped if it is drawn."""
        drawn = uniform(query.index, self.max_neighbours, self.seed).double() * len(index)
        rows = drawn.long().clamp(max=len(index) - 1)
        rows = rows.masked_fill(~allowed(index, query, "any", rows), -1)
        distances = (index.vectors[rows.clamp(min=0)] - query.vectors[:, None]).norm(dim=-1)
        return Neighbours(rows, distances.masked_fill(rows < 0, torch.inf))
