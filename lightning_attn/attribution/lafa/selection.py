"""Which training texts count as neighbours: `Selection` and its kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from lightning_attn.attribution.lafa.index import NeighbourIndex
from lightning_attn.attribution.lafa.search import Classes, Exact, Neighbours, Query, Search, allowed, nearest
from lightning_attn.errors import InputError
from lightning_attn.ops.randomness import uniform


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

    def select(self, index: NeighbourIndex, query: Query) -> Neighbours:
        """See :meth:`Selection.select`; a copy of the text itself is dropped if it is drawn."""
        drawn = uniform(query.index, self.max_neighbours, self.seed).double() * len(index)
        rows = drawn.long().clamp(max=len(index) - 1)
        rows = rows.masked_fill(~allowed(index, query, "any", rows), -1)
        distances = (index.vectors[rows.clamp(min=0)] - query.vectors[:, None]).norm(dim=-1)
        return Neighbours(rows, distances.masked_fill(rows < 0, torch.inf))
