"""What instances look like, `Modality`: made up, `GeneratedModality`, or of a data set, `PooledModality`; `stream`."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from lightning_attn.data.bags.dataset import SPLITS
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError

POOLS = (0.6, 0.2, 0.2)  # of the instances of a data set without splits of its own
TRIES = 200  # a split owns a quarter of all content at least: so many failures mean that there is hardly any content


def stream(seed: int, purpose: str, split: str = "") -> np.random.Generator:
    """A generator (PCG64) that depends on its arguments alone: the same on every machine, independent of others.

    Args:
        seed: Of the data module, 0 or more.
        purpose: What is drawn, such as ``sizes``; two purposes never share numbers.
        split: The split it is drawn for; "" for what all splits share, such as the centres of clusters.
    """
    key = [zlib.crc32(word.encode()) for word in (purpose, split)]  # hash() differs from process to process
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


class Modality(ABC):
    """Gives an instance to each kind that is asked for.

    Kind 0 is what tasks call A, kind 1 what they call B if they know a B; all other kinds are background. No instance
    ever stands in two splits.
    """

    @property
    @abstractmethod
    def num_kinds(self) -> int:
        """How many kinds there are."""

    @abstractmethod
    def instances(self, kinds: Array, split: str, seed: int) -> tuple[Array, Array | None]:
        """An instance of each kind asked for.

        Args:
            kinds: N kinds, shape ``(N,)``, int64.
            split: ``train``, ``val`` or ``test``.
            seed: Decides them.

        Returns:
            Features of P instances, shape ``(P, ...)``, float32; and for each instance its row in them, shape ``(N,)``,
            int64, or None if instance i is row i.
        """

    def describe(self) -> str:
        """What the instances are, for the notes."""
        return type(self).__name__


class GeneratedModality(Modality):
    """Instances that are made up, anew for each split."""

    def instances(self, kinds: Array, split: str, seed: int) -> tuple[Array, None]:
        """Drawn in float64 and rounded, so that ``exp`` and ``log`` may differ in their last bit between machines."""
        return self.draw(kinds, split, seed).astype(np.float32), None

    @abstractmethod
    def draw(self, kinds: Array, split: str, seed: int) -> Array:
        """Features of an instance of each kind, shape ``(N, ...)``."""

    @abstractmethod
    def log_likelihood(self, features: Array, seed: int) -> Array:
        """Natural log of p(features given kind), up to a term that is the same for all kinds.

        Args:
            features: Shape ``(N, ...)``.
            seed: That of the data module.

        Returns:
            Shape ``(N, num_kinds)``, float64.
        """


class PooledModality(Modality):
    """Instances of a data set, drawn with replacement from a pool for each split.

    Args:
        letters: The data set's names of the kinds that are A and B.

    Raises:
        InputError: There are fewer than two letters, or one twice.
    """

    def __init__(self, letters: tuple[str, ...]) -> None:
        if len(letters) != 2 or len(set(letters)) < 2:
            raise InputError(f"{type(self).__name__} needs letters of two different kinds, not {list(letters)}.")
        self.letters = letters
        self._pools: dict[tuple[str, int], tuple[Array, Array]] = {}

    @abstractmethod
    def names(self) -> list[str]:
        """The data set's names of all kinds, in its own order."""

    @abstractmethod
    def pool(self, split: str, seed: int) -> tuple[Array, Array]:
        """Features of all instances of a split, ``(P, ...)``, and the number of each one's name, ``(P,)``.

        Raises:
            InputError: The data cannot be read.
        """

    @property
    def kind_names(self) -> list[str]:
        """The name of each kind: the letters first, then the others in the order of the data set.

        Raises:
            InputError: The data set has no such kind.
        """
        names = self.names()
        if missing := [letter for letter in self.letters if letter not in names]:
            raise InputError(f"{type(self).__name__} has no kind {missing[0]!r}; it has {', '.join(names)}.")
        return [*self.letters, *(name for name in names if name not in self.letters)]

    @property
    def num_kinds(self) -> int:
        """As many as the data set has classes."""
        return len(self.names())

    def instances(self, kinds: Array, split: str, seed: int) -> tuple[Array, Array]:
        """Each from the instances of its kind, with equal probability, however often."""
        names, kind_names = self.names(), self.kind_names
        if (split, seed) not in self._pools:
            self._pools[split, seed] = self.pool(split, seed)
        features, labels = self._pools[split, seed]
        kind_of = np.array([kind_names.index(name) for name in names])[labels]
        order = np.argsort(kind_of, kind="stable")
        counts = np.bincount(kind_of, minlength=len(names))
        if short := [kind_names[kind] for kind in np.unique(kinds) if counts[kind] == 0]:
            raise InputError(f"{type(self).__name__} has no {split} instance of kind {short[0]!r}.")
        starts = np.cumsum(counts) - counts
        return features, order[starts[kinds] + stream(seed, "instances", split).integers(0, counts[kinds])]


def divide(labels: Array, seed: int) -> dict[str, Array]:
    """Rows of each split's pool, ascending: of each label the shares in ``POOLS``, drawn by the seed."""
    generator = stream(seed, "pools")
    parts: dict[str, list[Array]] = {split: [] for split in SPLITS}
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(POOLS) * len(rows)).astype(np.int64)
        for split, part in zip(SPLITS, np.split(rows, ends[:-1]), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(rows)) for split, rows in parts.items()}


def owned(content: Array, split: str) -> Array:
    """Whether a split may have instances of this content, shape ``(N,)``, bool: exactly one split may.

    The hash has nothing to do with the kind; half of all content is of ``train``.

    Args:
        content: Whole numbers, shape ``(N, D)``.
        split: ``train``, ``val`` or ``test``.
    """
    state = np.full(len(content), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in np.ascontiguousarray(content.T).astype(np.uint64):
        state = _mix(state ^ column)
    quarter = (state >> np.uint64(62)).astype(np.int64)  # the first two of train, then one each
    return np.maximum(quarter - 1, 0) == SPLITS.index(split)  # type: ignore[no-any-return]


def draw_owned(kinds: Array, split: str, draw: Callable[[Array], Array]) -> Array:
    """Content that the split owns, for instances of so few values that two splits would draw the same now and then.

    Args:
        kinds: N kinds, shape ``(N,)``.
        split: What is not its own is drawn again.
        draw: From kinds, shape ``(M,)``, to whole numbers, shape ``(M, D)``.

    Raises:
        InputError: There are too few values for three splits.
    """
    content = draw(kinds)
    missing = np.flatnonzero(~owned(content, split))
    for _ in range(TRIES):
        if not len(missing):
            return content
        content[missing] = draw(kinds[missing])
        missing = missing[~owned(content[missing], split)]
    raise InputError(
        f"There are too few different instances to have others in each split: {TRIES} draws for {split} gave only "
        "those of other splits; make the sequences longer, or the counts larger."
    )


def _mix(x: Array) -> Array:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def positive(owner: object, **values: float) -> None:
    """Refuse numbers of 0 or less.

    Raises:
        InputError: One is not above 0.
    """
    for name, value in values.items():
        if value <= 0:
            raise InputError(f"{type(owner).__name__} needs {name} above 0, not {value:g}.")
