"""Length-bucketed batches that are exact under any number of processes: `BucketBatches`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import DistributedSampler

from lightning_attn.data.encoded import Array

NOISE = 0.1  # lengths are off by up to this share when training batches are cut, so that batches differ between epochs


class BucketBatches(DistributedSampler[list[int]]):
    """Yields lists of rows whose texts are about equally long, so that little is padded.

    Training (``shuffle=True``): lengths with 10 % noise are sorted and cut into batches, and the batches shuffled.
    What an epoch looks like depends on ``seed`` and the epoch alone, so a resumed run sees the same batches. Every
    rank gets the same number of batches: the first ones are given twice where the numbers do not divide.

    Evaluation (``shuffle=False``): the batches are the same whatever the number of ranks, and each goes to exactly
    one of them. Where the numbers do not divide, the last ranks end with an empty one: Lightning skips the whole
    evaluation on a rank without a batch, and the others would wait for it for ever. The order is shuffled once, so
    that the first few batches (``limit_val_batches``) are not the shortest texts.

    Use as ``DataLoader(dataset, sampler=BucketBatches(...), batch_size=None)``. It is a
    :class:`~torch.utils.data.DistributedSampler` because Lightning replaces every other sampler under DDP by one
    that repeats rows to make shards even, which would bias each metric.

    Args:
        lengths: Tokens of each text, shape ``(N,)``.
        batch_size: Rows per batch, at least 1.
        shuffle: Whether this is for training.
        seed: Decides the order.
        rank: This process, from 0.
        world_size: Number of processes.
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
    ) -> None:
        super().__init__(lengths, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.lengths = lengths
        self.batch_size = batch_size
        self._resume: Callable[[], tuple[int, int]] | None = None

    def resume(self, place: Callable[[], tuple[int, int]]) -> None:
        """Let the next pass, and only that, begin where a run stopped that is resumed.

        Args:
            place: Asked when the pass begins: the epoch, and how many of its batches are done.
        """
        self._resume = place

    def __len__(self) -> int:
        """Number of batches of this rank."""
        count = -(-len(self.lengths) // self.batch_size)
        return -(-count // self.num_replicas)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this rank in this epoch."""
        start = 0
        if self._resume is not None:
            epoch, start = self._resume()
            self._resume = None
            self.set_epoch(epoch)
        batches = self._training_batches() if self.shuffle else self._evaluation_batches()
        for batch in batches[self.rank :: self.num_replicas][start:]:
            yield batch.tolist()

    def _training_batches(self) -> list[npt.NDArray[np.int64]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        noisy = self.lengths * generator.uniform(1 - NOISE, 1 + NOISE, size=len(self.lengths))
        order = np.argsort(noisy, kind="stable")
        count = -(-len(order) // self.batch_size)
        if count == 0:
            return []
        # the one batch that is not full stands anywhere; at the end it would always hold the longest texts
        sizes = np.full(count, self.batch_size)
        sizes[generator.integers(count)] -= count * self.batch_size - len(order)
        cut = np.split(order, sizes.cumsum()[:-1])
        batches = [cut[position] for position in generator.permutation(count)]
        return batches + [batches[extra % count] for extra in range(-count % self.num_replicas)]

    def _evaluation_batches(self) -> list[npt.NDArray[np.int64]]:
        order = np.argsort(self.lengths, kind="stable")
        batches = [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]
        shuffled = [batches[position] for position in np.random.default_rng(self.seed).permutation(len(batches))]
        return shuffled + [order[:0]] * (-len(shuffled) % self.num_replicas)
