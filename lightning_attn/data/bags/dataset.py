"""Bags as flat arrays, `Bags`, and the data set that makes packed batches of them, `BagDataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_attn.data.encoded import Array, SplitDataset, offsets_of
from lightning_attn.types import Batch


@dataclass
class Bags:
    """B bags, their N instances one after another. The arrays may be memory-mapped.

    Attributes:
        features: Features of P instances, shape ``(P, ...)``, float32.
        offsets: Bag b holds the instances ``offsets[b]`` to ``offsets[b + 1]``, shape ``(B + 1,)``, int64.
        labels: Class indices, shape ``(B,)``, int64; or one 0/1 column a class, shape ``(B, C)``, float32.
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
        chosen: Which of the bags are in the split, shape ``(S,)``, int64; None for all.
    """

    def __init__(self, bags: Bags, chosen: Array | None = None) -> None:
        self.bags = bags
        self.chosen = np.arange(len(bags)) if chosen is None else chosen

    def __len__(self) -> int:
        """Number of bags S."""
        return len(self.chosen)

    @property
    def lengths(self) -> Array:
        """Instances of each bag, shape ``(S,)``."""
        return self.bags.sizes[self.chosen]

    @property
    def labels(self) -> Array:
        """Class indices, shape ``(S,)``, or one 0/1 column a class, shape ``(S, C)``."""
        return self.bags.labels[self.chosen]

    @property
    def names(self) -> Array | None:
        """What the bags are called in their file, shape ``(S,)``; None for generated bags."""
        return None if self.bags.names is None else self.bags.names[self.chosen]

    @property
    def offsets(self) -> Array:
        """Where each bag begins and ends in :attr:`roles`, :attr:`kinds` and :attr:`source`, shape ``(S + 1,)``."""
        return offsets_of(self.lengths)

    @property
    def roles(self) -> Array | None:
        """`Role` of each instance, bag after bag, shape ``(N,)``, int8; None if nobody knows."""
        return None if self.bags.roles is None else self.bags.roles[self._places(self.chosen)]

    @property
    def kinds(self) -> Array | None:
        """Kind of each instance, bag after bag, shape ``(N,)``, int64; None if nobody knows."""
        return None if self.bags.kinds is None else self.bags.kinds[self._places(self.chosen)]

    @property
    def evidence(self) -> Array | None:
        """Importance of each instance, bag after bag, shape ``(N,)``; None if the data have none."""
        return None if self.bags.evidence is None else self.bags.evidence[self._places(self.chosen)]

    @property
    def features(self) -> Array:
        """Features of each instance, bag after bag, shape ``(N, ...)``; all of them in memory."""
        return self._features(self._places(self.chosen))

    def __getitem__(self, rows: int | Sequence[int]) -> Batch:
        """The bags at ``rows`` as a packed batch; one row alone (overfit_batches) is a batch of one.

        ``evidence`` is NaN where no instance stands.
        """
        index = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        chosen = self.chosen[index]
        places = self._places(chosen)
        sizes = self.bags.sizes[chosen]
        valid = np.arange(sizes.max(initial=0)) < sizes[:, None]
        evidence = None
        if self.bags.evidence is not None:
            evidence = np.full(valid.shape, np.nan, dtype=np.float32)
            evidence[valid] = self.bags.evidence[places]
        return Batch(
            inputs=_tensor(self._features(places)),
            valid=_tensor(valid),
            special=torch.zeros(valid.shape, dtype=torch.bool),
            target=_tensor(self.bags.labels[chosen]),
            index=_tensor(index),
            evidence=None if evidence is None else _tensor(evidence),
            packed=True,
        )

    def _places(self, chosen: Array) -> Array:
        """Where the instances of the bags stand in the flat arrays, shape ``(N,)``."""
        sizes = self.bags.sizes[chosen]
        shift = self.bags.offsets[chosen] - offsets_of(sizes)[:-1]
        return np.asarray(np.arange(sizes.sum()) + np.repeat(shift, sizes))

    def _features(self, places: Array) -> Array:
        rows = places if self.bags.source is None else self.bags.source[places]
        return np.asarray(self.bags.features[rows])


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
