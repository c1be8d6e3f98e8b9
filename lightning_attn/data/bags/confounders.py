"""What goes along with the label without deciding it: `Confounder`, `CorrelatedBackground`, `Poison`.

They are for the question whether attention can be wrong while the prediction is right. Labels, roles and evidence stay
what the task says: a confounder only exchanges background instances for other background.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_attn.data.bags.dataset import SPLITS
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError


@dataclass
class Draft:
    """Bags whose instances have kinds, but no features yet. B bags, N instances in all.

    Attributes:
        kinds: Kind of each instance, shape ``(N,)``, int64.
        replaceable: True on background, shape ``(N,)``, bool.
        bag: Bag of each instance, ascending, shape ``(N,)``, int64.
        labels: Class of each bag, shape ``(B,)``, int64.
        background: Kinds that ordinary background is of.
        split: ``train``, ``val`` or ``test``.
    """

    kinds: Array
    replaceable: Array
    bag: Array
    labels: Array
    background: Array
    split: str


class Confounder(ABC):
    """Exchanges background instances.

    Attributes:
        reserved: Number of kinds that it takes for itself; ordinary background is never of them.
    """

    reserved: int = 0

    @abstractmethod
    def kinds(self, draft: Draft, reserved: Array, generator: np.random.Generator) -> Array:
        """The kinds of all instances afterwards, shape ``(N,)``.

        Args:
            draft: The bags as they are.
            reserved: The kinds that it may take for itself.
            generator: Where random numbers come from.
        """


class CorrelatedBackground(Confounder):
    """Each class has a favourite among the kinds of background.

    Args:
        strength: Probability that a background instance is of the favourite kind of its bag's class, whatever it was,
            in [0, 1].
        splits: Where it holds; without ``test``, the test bags do not go along.

    Raises:
        InputError: The strength is out of range, or a split is unknown.
    """

    def __init__(self, strength: float = 0.5, splits: Sequence[str] = SPLITS) -> None:
        if not 0 <= strength <= 1:
            raise InputError(f"CorrelatedBackground needs a strength from 0 to 1, not {strength:g}.")
        if unknown := [split for split in splits if split not in SPLITS]:
            raise InputError(f"CorrelatedBackground knows no split {unknown[0]!r}; the splits are {', '.join(SPLITS)}.")
        self.strength = strength
        self.splits = tuple(splits)

    def kinds(self, draft: Draft, reserved: Array, generator: np.random.Generator) -> Array:
        """Class y prefers background kind number y, counted round."""
        if draft.split not in self.splits:
            return draft.kinds
        moved = draft.replaceable & (generator.random(len(draft.kinds)) < self.strength)
        favourite = draft.background[draft.labels % len(draft.background)]
        return np.where(moved, favourite[draft.bag], draft.kinds)


class Poison(Confounder):
    """One instance of a kind of its own: in bags of the first class while training, in the others at test.

    It stands in ``train`` and in ``val``, so that nobody who selects on validation data sees that it misleads; in
    ``test`` it turns against whoever learned it. A bag without background has no place for it and gets none.

    Args:
        share: Share of those bags that get one, in [0, 1].

    Raises:
        InputError: The share is out of range.
    """

    reserved = 1

    def __init__(self, share: float = 1.0) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"Poison needs a share from 0 to 1, not {share:g}.")
        self.share = share

    def kinds(self, draft: Draft, reserved: Array, generator: np.random.Generator) -> Array:
        """A background instance, any one of the bag, is exchanged."""
        first = draft.labels == 0
        poisoned = (~first if draft.split == "test" else first) & (generator.random(len(draft.labels)) < self.share)
        # One place per bag: among the background instances in random order, the first of each bag.
        places = generator.permutation(np.flatnonzero(draft.replaceable))
        bags, where = np.unique(draft.bag[places], return_index=True)
        kinds: Array = draft.kinds.copy()
        kinds[places[where[poisoned[bags]]]] = reserved[0]
        return kinds
