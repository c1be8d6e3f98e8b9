"""Bags as flat arrays, `Bags`; packed batches of them, `BagDataset`; which bags make a batch, `BagBatches`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_attn.data.batching import BucketBatches
from lightning_attn.data.encoded import Array, SplitDataset, offsets_of
from lightning_attn.errors import InputError
from lightning_attn.types import Batch

SPLITS = ("train", "val", "test")


@dataclass
class Bags:
    """B bags, their N instances one after another. The arrays may be memory-mapped.

    Attributes:
        features: Features of P instances, shape ``(P, ...)``, float32.
        offsets: Bag b holds the instances ``offsets[b]`` to ``offsets[b + 1]``, shape ``(B + 1,)``, int64.
        labels: Class indices, shape ``(B,)``, int64; or one 0/1 column per class, shape ``(B, C)``, float32.
        evidence: Importance of each instance in [0, 1], NaN where unknown, shape ``(N,)``, float32; None if the data
            have none.
        source: Row of each instance in ``features``, shape ``(N,)``, int64; None if instance i is row i. Generated bags
            of images share the images.
        roles: `Role` of each instance, shape ``(N,)``, int8; None if nobody knows.
        kinds: Kind of each instance, shape ``(N,)``, int64; None if nobody knows.
        names: What a bag is called in its file, shape ``(B,)``; None for generated bags.
    """

    features: Array
    offsets: Array
    labels: Array
    evidence: Array | None = None
    source: Array | None = None
    roles: Array | None = None
    kinds: Array | None = None
    names: Array | None = None

    def __len__(self) -> int:
        """Number of bags B."""
        return len(self.labels)

    @property
    def sizes(self) -> Array:
        """Instances of each bag, shape ``(B,)``."""
        return np.diff(self.offsets)


class BagDataset(SplitDataset):
    """A split of bags; asked for several rows at once, it gives a packed `Batch`, in which nothing is padded.

    Only the instances of the batch are read; nothing loops over bags or instances.

    Args:
        bags: Where the instances are.
        members: Which of the bags are in the split, shape ``(S,)``, int64; None for all.
    """

    def __init__(self, bags: Bags, members: Array | None = None) -> None:
        self.bags = bags
        self.members = np.arange(len(bags)) if members is None else members

    def __len__(self) -> int:
        """Number of bags S."""
        return len(self.members)

    @property
    def lengths(self) -> Array:
        """Instances of each bag, shape ``(S,)``."""
        return self.bags.sizes[self.members]

    @property
    def labels(self) -> Array:
        """Class indices, shape ``(S,)``, or one 0/1 column per class, shape ``(S, C)``."""
        return self.bags.labels[self.members]

    @property
    def names(self) -> Array | None:
        """What the bags are called in their file, shape ``(S,)``; None for generated bags."""
        return None if self.bags.names is None else self.bags.names[self.members]

    @property
    def offsets(self) -> Array:
        """Where each bag begins and ends in :attr:`roles`, :attr:`kinds` and :attr:`source`, shape ``(S + 1,)``."""
        return offsets_of(self.lengths)

    @property
    def roles(self) -> Array | None:
        """`Role` of each instance, bag after bag, shape ``(N,)``, int8; None if nobody knows."""
        return None if self.bags.roles is None else self.bags.roles[self._places(self.members)]

    @property
    def kinds(self) -> Array | None:
        """Kind of each instance, bag after bag, shape ``(N,)``, int64; None if nobody knows."""
        return None if self.bags.kinds is None else self.bags.kinds[self._places(self.members)]

    @property
    def evidence(self) -> Array | None:
        """Importance of each instance, bag after bag, shape ``(N,)``; None if the data have none."""
        return None if self.bags.evidence is None else self.bags.evidence[self._places(self.members)]

    @property
    def features(self) -> Array:
        """Features of each instance, bag after bag, shape ``(N, ...)``; all of them in memory."""
        return self._features(self._places(self.members))

    def __getitem__(self, rows: int | Sequence[int]) -> Batch:
        """The bags at ``rows`` as a packed batch; one row alone (overfit_batches) is a batch of one.

        ``evidence`` is NaN where no instance stands.
        """
        index = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        bags = self.members[index]
        places = self._places(bags)
        sizes = self.bags.sizes[bags]
        valid = np.arange(sizes.max(initial=0)) < sizes[:, None]
        evidence = None
        if self.bags.evidence is not None:
            evidence = np.full(valid.shape, np.nan, dtype=np.float32)
            evidence[valid] = self.bags.evidence[places]
        return Batch(
            inputs=_tensor(self._features(places)),
            valid=_tensor(valid),
            special=torch.zeros(valid.shape, dtype=torch.bool),
            target=_tensor(self.bags.labels[bags]),
            index=_tensor(index),
            evidence=None if evidence is None else _tensor(evidence),
            packed=True,
        )

    def _places(self, bags: Array) -> Array:
        """Where the instances of the bags stand in the flat arrays, shape ``(N,)``."""
        sizes = self.bags.sizes[bags]
        shift = self.bags.offsets[bags] - offsets_of(sizes)[:-1]
        return np.asarray(np.arange(sizes.sum()) + np.repeat(shift, sizes))

    def _features(self, places: Array) -> Array:
        rows = places if self.bags.source is None else self.bags.source[places]
        return np.asarray(self.bags.features[rows])


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


class BagBatches(BucketBatches):
    """Yields lists of rows of bags, for packed batches, which need not hold bags of about equal size.

    Training (``shuffle=True``): bags are sorted by size into as many bags per layer as there are batches, equal
    sizes in random order; each batch gets one bag of every layer at random. So large and small bags mix, all
    batches cost about the same, none is over ``max_instances``, and there are as many in every epoch. Evaluation
    (``shuffle=False``): bags of about equal size together, because measurements pad; with ``max_instances`` a batch
    has at most so many positions, padding included. For the rest see `BucketBatches`: deterministic, and exact on
    any number of ranks.

    Args:
        lengths: Instances of each bag, shape ``(N,)``.
        batch_size: Bags of a batch at most, at least 1.
        shuffle: Whether this is for training.
        seed: Decides the order.
        rank: This process, from 0.
        world_size: Number of processes.
        max_instances: Instances of a batch at most; None for no limit.

    Raises:
        InputError: A bag alone has more than ``max_instances``.
    """

    def __init__(
        self,
        lengths: Array,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        max_instances: int | None = None,
    ) -> None:
        super().__init__(lengths, batch_size, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size)
        largest = int(lengths.max(initial=0))
        if max_instances is not None and largest > max_instances:
            raise InputError(
                f"A bag has {largest:,} instances; max_instances must be at least that, not {max_instances:,}."
            )
        self.max_instances = max_instances
        self._cuts = [] if shuffle else self._evaluation_cuts()
        self._count = self._training_count() if shuffle else len(self._cuts)

    def __len__(self) -> int:
        """Number of batches of this rank, in every epoch."""
        return -(-self._count // self.num_replicas)

    def _training_count(self) -> int:
        """The fewest batches in which the largest bags of all layers fit into one batch: whatever is dealt, it fits."""
        falling = np.sort(self.lengths)[::-1]
        low = -(-len(falling) // self.batch_size)
        if self.max_instances is None:
            return low
        high = len(falling)  # one bag per batch, which fits
        while low < high:
            middle = (low + high) // 2
            if falling[::middle].sum() <= self.max_instances:
                high = middle
            else:
                low = middle + 1
        return low

    def _training_batches(self) -> list[npt.NDArray[np.int64]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        # stable after a permutation: equal sizes are in random order
        order = generator.permutation(len(self.lengths))
        order = order[np.argsort(-self.lengths[order], kind="stable")]
        layers = [order[first : first + self._count] for first in range(0, len(order), max(self._count, 1))]
        batch = np.concatenate([generator.permutation(self._count)[: len(layer)] for layer in layers] or [order])
        sizes = np.bincount(batch, minlength=self._count)
        batches = np.split(order[np.argsort(batch, kind="stable")], sizes.cumsum()[:-1]) if self._count else []
        return batches + [batches[extra % self._count] for extra in range(-self._count % self.num_replicas)]

    def _evaluation_cuts(self) -> list[npt.NDArray[np.int64]]:
        order = np.argsort(self.lengths, kind="stable")
        rising = self.lengths[order]
        cuts, first = [], 0
        while first < len(order):
            room = self.batch_size
            if self.max_instances is not None:  # bags times the largest of them, which is the last
                widths = rising[first : first + room] * np.arange(1, len(rising[first : first + room]) + 1)
                room = int(np.searchsorted(widths, self.max_instances, side="right"))
            cuts.append(order[first : first + room])
            first += room
        return cuts

    def _evaluation_batches(self) -> list[npt.NDArray[np.int64]]:
        order = np.random.default_rng(self.seed).permutation(self._count)
        nothing = np.zeros(0, dtype=np.int64)
        return [self._cuts[position] for position in order] + [nothing] * (-self._count % self.num_replicas)
