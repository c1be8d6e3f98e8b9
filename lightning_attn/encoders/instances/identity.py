"""No encoder: the features as they are."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_attn.encoders.instances.base import InstanceEncoder


class Identity(InstanceEncoder):
    """The features themselves, flattened: for embeddings that another network has made."""

    def make(self, feature_shape: tuple[int, ...]) -> int:
        """There are no layers; H is the number of features."""
        return math.prod(feature_shape)

    def transform(self, instances: Tensor) -> Tensor:
        """Shape ``(N, H)`` from instances ``(N, ...)``."""
        return instances.flatten(1)
