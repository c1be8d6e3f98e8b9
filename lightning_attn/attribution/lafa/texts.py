"""Neighbours as a person reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lightning_attn.attribution.lafa.index import NeighbourIndex
from lightning_attn.attribution.lafa.search import Neighbours


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
    found = []
    for rows, distances in zip(neighbours.rows.tolist(), neighbours.distances.tolist(), strict=True):
        texts = []
        for row, distance in zip(rows, distances, strict=True):
            if row >= 0:
                ids = index.tokens[index.offsets[row] : index.offsets[row + 1]].tolist()
                texts.append(NeighbourText(" ".join(show(ids)), class_names[int(index.predicted[row])], distance))
        found.append(texts)
    return found
