"""Points around centres: `GaussianClusters`."""

from __future__ import annotations

import numpy as np

from lightning_attn.data.bags.modalities.base import GeneratedModality, positive
from lightning_attn.data.bags.streams import stream
from lightning_attn.data.encoded import Array


class GaussianClusters(GeneratedModality):
    """Each kind is a normal distribution with unit variance around a centre of its own.

    The centres are normal numbers, drawn by the seed once for all splits and tasks.

    Args:
        clusters: Number of kinds, at least 2.
        dim: Number of features.
        distance: Of two centres, in standard deviations of a cluster; the root mean square over draws.

    Raises:
        InputError: A number is not above 0.
    """

    def __init__(self, clusters: int = 6, dim: int = 8, distance: float = 6.0) -> None:
        positive(self, clusters=clusters, dim=dim, distance=distance)
        self.clusters = clusters
        self.dim = dim
        self.distance = distance

    @property
    def num_kinds(self) -> int:
        """As many as clusters."""
        return self.clusters

    def centres(self, seed: int) -> Array:
        """Shape ``(clusters, dim)``."""
        spread = self.distance / np.sqrt(2 * self.dim)
        return stream(seed, "centres").normal(0.0, spread, size=(self.clusters, self.dim))

    def draw(self, kinds: Array, split: str, seed: int) -> Array:
        """Centre plus noise."""
        noise = stream(seed, "instances", split).normal(size=(len(kinds), self.dim))
        return self.centres(seed)[kinds] + noise

    def log_likelihood(self, features: Array, seed: int) -> Array:
        """Minus half the squared distance to each centre."""
        difference = features[:, None, :].astype(np.float64) - self.centres(seed)
        return -0.5 * np.einsum("nkd,nkd->nk", difference, difference)  # type: ignore[no-any-return]
