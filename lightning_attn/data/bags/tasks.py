"""What decides the label of a bag, and which instances that makes important: `BagTask` and the seven tasks.

Instances are of kinds. A task knows one or two of them, called A and B; all others are background. How many of each
stand in a bag decides its label, and the role of A and of B in it. The tasks and these conventions are reconstructed
(Haab et al., XKDD 2022, arXiv 2207.13018: the recipe was not available to us).

| task | class 1 if | A | B | evidence |
|---|---|---|---|---|
| `Presence` | there is an A | key | background | key |
| `Count` | there are k A or more | key; supporting if fewer | background | key |
| `Conjunction` | there are A and B | key; supporting alone | as A | key |
| `ExclusiveOr` | there is A or B, not both | key; refuting beside B | as A | key, refuting |
| `Majority` | there are more A than B | key; supporting if outnumbered | refuting | key, supporting, refuting |
| `PresenceWithVeto` | there is an A and no B | key; supporting beside B | refuting beside A | key, refuting |
| `FourBags` | classes: none, A, B, A and B | key | key | key |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import ClassVar

import numpy as np

from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError

BINARY = ("negative", "positive")
NONE, ONLY_A, ONLY_B, BOTH = (False, False), (True, False), (False, True), (True, True)


class Role(IntEnum):
    """What an instance does in its bag.

    The question is always whether the bag is positive (for `FourBags`: which of the two letters are there).
    """

    NEUTRAL = 0  #: says nothing: background
    KEY = 1  #: makes the bag what it is; without these it would have another label
    SUPPORTING = 2  #: speaks for the positive class, in a bag that is negative all the same
    REFUTING = 3  #: speaks against the positive class


class BagTask(ABC):
    """A rule from the numbers of A and of B in a bag to its label, and the bags that are drawn to learn it from.

    Classes are equally frequent by construction: bag number r of a split is of class ``r % C``. The ``cases`` of a
    class, such as "neither", "A alone" and "B alone" in a negative `Conjunction`, are equally frequent in turn, so that
    neither letter alone gives the label away.

    Attributes:
        letters: How many kinds the task knows: 1 (A) or 2 (A and B).
        classes: Class names, in the order of the logits.
        cases: For each class, which of A and B its bags may hold.
        decisive: The roles whose instances count as evidence.
    """

    letters: ClassVar[int] = 2
    classes: ClassVar[tuple[str, ...]] = BINARY
    cases: ClassVar[tuple[tuple[tuple[bool, bool], ...], ...]]
    decisive: ClassVar[frozenset[Role]] = frozenset({Role.KEY})

    @property
    def least(self) -> int:
        """Instances that a bag must have room for."""
        return self.letters

    def plan(self, count: int) -> tuple[Array, Array]:
        """Class of each bag, shape ``(B,)``, int64, and whether it holds A and B, shape ``(B, 2)``, bool."""
        row = np.arange(count)
        wanted = row % len(self.classes)
        turn = row // len(self.classes)
        present = np.zeros((count, 2), dtype=bool)
        for label, cases in enumerate(self.cases):
            rows = wanted == label
            present[rows] = np.array(cases)[turn[rows] % len(cases)]
        return wanted, present

    def counts(self, sizes: Array, drawn: Array, wanted: Array, present: Array) -> Array:
        """How many A and B a bag gets: what was drawn, moved to the nearest numbers that the plan allows.

        Args:
            sizes: Instances of each bag, at least :attr:`least`, shape ``(B,)``.
            drawn: Two binomial numbers of ``sizes`` trials at the witness rate, shape ``(B, 2)``.
            wanted: Class of each bag, shape ``(B,)``.
            present: Whether it holds A and B, shape ``(B, 2)``.

        Returns:
            Shape ``(B, 2)``, int64; at least 1 where ``present``, 0 elsewhere, together at most ``sizes``.
        """
        first = np.where(present[:, 0], np.clip(drawn[:, 0], 1, sizes - present[:, 1]), 0)
        second = np.where(present[:, 1], np.clip(drawn[:, 1], 1, sizes - first), 0)
        return np.stack([first, second], axis=1)

    @abstractmethod
    def label(self, counts: Array) -> Array:
        """The rule: classes, shape ``(B,)``, int64, from numbers of A and B, shape ``(B, 2)``."""

    @abstractmethod
    def roles(self, counts: Array) -> Array:
        """The `Role` that every A, and every B, has in each bag, shape ``(B, 2)``, int8; any where there is none."""

    def describe(self) -> str:
        """The rule in words, for the notes."""
        return type(self).__name__


def _choose(condition: Array, then: Role, otherwise: Role) -> Array:
    return np.where(condition, int(then), int(otherwise)).astype(np.int8)


class Presence(BagTask):
    """Positive if there is an A. Standard multiple-instance assumption (Dietterich et al. 1997).

    The A of positive bags are key; negative bags have no evidence.
    """

    letters = 1
    cases = ((NONE,), (ONLY_A,))

    def label(self, counts: Array) -> Array:
        """1 where there is an A."""
        return (counts[:, 0] > 0).astype(np.int64)

    def roles(self, counts: Array) -> Array:
        """A is key."""
        return np.full_like(counts, Role.KEY, dtype=np.int8)


class Count(BagTask):
    """Positive if there are ``k`` A or more.

    The A of positive bags are key; those of negative bags support what they cannot carry, and are no evidence. Both
    classes draw the same number of A and move it to the nearest one that is right, so most bags are close to ``k``.

    Args:
        k: How many it takes, at least 1.

    Raises:
        InputError: ``k`` is below 1.
    """

    letters = 1
    cases = ((ONLY_A,), (ONLY_A,))

    def __init__(self, k: int = 3) -> None:
        if k < 1:
            raise InputError(f"Count needs a k of at least 1, not {k}.")
        self.k = k

    @property
    def least(self) -> int:
        """As many as it takes."""
        return self.k

    def counts(self, sizes: Array, drawn: Array, wanted: Array, present: Array) -> Array:
        """``k`` or more A for positive bags, fewer for negative ones."""
        first = np.where(wanted == 1, np.maximum(drawn[:, 0], self.k), np.minimum(drawn[:, 0], self.k - 1))
        return np.stack([first, np.zeros_like(first)], axis=1)

    def label(self, counts: Array) -> Array:
        """1 where there are ``k`` A."""
        return (counts[:, 0] >= self.k).astype(np.int64)

    def roles(self, counts: Array) -> Array:
        """A is key if there are enough of them, else supporting."""
        return _choose(np.repeat(counts[:, :1] >= self.k, 2, axis=1), Role.KEY, Role.SUPPORTING)

    def describe(self) -> str:
        """With the number."""
        return f"Count of {self.k}"


class Conjunction(BagTask):
    """Positive if there are A and B.

    In positive bags both are key. A or B alone supports, and is no evidence. A third each of the negative bags holds
    neither, A alone and B alone.
    """

    cases = ((NONE, ONLY_A, ONLY_B), (BOTH,))

    def label(self, counts: Array) -> Array:
        """1 where there are both."""
        return np.asarray((counts > 0).all(axis=1), dtype=np.int64)

    def roles(self, counts: Array) -> Array:
        """Key together, supporting alone."""
        return _choose(np.repeat((counts > 0).all(axis=1, keepdims=True), 2, axis=1), Role.KEY, Role.SUPPORTING)


class ExclusiveOr(BagTask):
    """Positive if there is A or B, but not both.

    The letter that stands alone is key. Where both stand, they refute each other: without either the bag would be
    positive, so both decide, and both are evidence. Half of each class holds neither (A alone), half both (B alone).
    """

    cases = ((NONE, BOTH), (ONLY_A, ONLY_B))
    decisive = frozenset({Role.KEY, Role.REFUTING})

    def label(self, counts: Array) -> Array:
        """1 where there is exactly one of the two kinds."""
        return np.asarray((counts > 0).sum(axis=1) == 1, dtype=np.int64)

    def roles(self, counts: Array) -> Array:
        """Key alone, refuting together."""
        return _choose(np.repeat((counts > 0).all(axis=1, keepdims=True), 2, axis=1), Role.REFUTING, Role.KEY)


class Majority(BagTask):
    """Positive if there are more A than B. Every bag holds both, and never as many of one as of the other.

    Every A and every B is counted, so all of them are evidence in every bag: A is key, or supporting where outnumbered;
    B is refuting.
    """

    cases = ((BOTH,), (BOTH,))
    decisive = frozenset({Role.KEY, Role.SUPPORTING, Role.REFUTING})

    @property
    def least(self) -> int:
        """Two of one kind and one of the other."""
        return 3

    def counts(self, sizes: Array, drawn: Array, wanted: Array, present: Array) -> Array:
        """The larger number goes to A in positive bags, to B in negative ones."""
        fewer = np.clip(drawn.min(axis=1), 1, (sizes - 1) // 2)
        more = np.clip(drawn.max(axis=1), fewer + 1, sizes - fewer)
        return np.where((wanted == 1)[:, None], np.stack([more, fewer], axis=1), np.stack([fewer, more], axis=1))

    def label(self, counts: Array) -> Array:
        """1 where there are more A."""
        return (counts[:, 0] > counts[:, 1]).astype(np.int64)

    def roles(self, counts: Array) -> Array:
        """A is key or supporting, B refuting."""
        first = _choose(counts[:, 0] > counts[:, 1], Role.KEY, Role.SUPPORTING)
        return np.stack([first, np.full_like(first, Role.REFUTING)], axis=1)


class PresenceWithVeto(BagTask):
    """Positive if there is an A and no B.

    The A of positive bags are key. Where B stands beside A, B refutes, decides and is evidence, and A supports in vain;
    B without A changes nothing and is neutral. A third each of the negative bags holds neither, both and B alone.
    """

    cases = ((NONE, BOTH, ONLY_B), (ONLY_A,))
    decisive = frozenset({Role.KEY, Role.REFUTING})

    def label(self, counts: Array) -> Array:
        """1 where there is an A and no B."""
        return np.asarray((counts[:, 0] > 0) & (counts[:, 1] == 0), dtype=np.int64)

    def roles(self, counts: Array) -> Array:
        """A is key, or supporting beside B; B is refuting beside A, else neutral."""
        first = _choose(counts[:, 1] == 0, Role.KEY, Role.SUPPORTING)
        return np.stack([first, _choose(counts[:, 0] > 0, Role.REFUTING, Role.NEUTRAL)], axis=1)


class FourBags(BagTask):
    """Four classes: neither, A, B, A and B. Every A and every B is key: without them the class would be another."""

    classes = ("none", "A", "B", "A and B")
    cases = ((NONE,), (ONLY_A,), (ONLY_B,), (BOTH,))

    def label(self, counts: Array) -> Array:
        """A counts 1, B counts 2."""
        return (counts > 0) @ np.array([1, 2])  # type: ignore[no-any-return]

    def roles(self, counts: Array) -> Array:
        """Key."""
        return np.full_like(counts, Role.KEY, dtype=np.int8)
