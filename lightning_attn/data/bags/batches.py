"""Batches by number of bags and by number of instances: `BagBatches`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_attn.data.batching import BucketBatches
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError


class BagBatches(BucketBatches):
    """Yields lists of rows of bags, for packed batches, which need not hold bags of about equal size.

    Training (``shuffle=True``): bags are sorted by size into as many bags a layer as there are batches, equal sizes in
    random order; each batch gets one bag of every layer at random. So large and small bags mix, all batches cost about
    the same, none is over ``max_instances``, and there are as many in every epoch. Evaluation (``shuffle=False``): bags
    of about equal size together, because measurements pad; with ``max_instances`` a batch has at most so many
    positions, padding included. For the rest see `BucketBatches`: deterministic, and exact on any number of ranks.

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
        high = len(falling)  # one bag a batch, which fits
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
