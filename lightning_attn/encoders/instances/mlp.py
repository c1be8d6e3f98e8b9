"""A multi-layer perceptron on each instance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from lightning_attn.encoders.instances.base import InstanceEncoder


class MLP(InstanceEncoder):
    """Linear layers with ReLU after each, on the flattened features.

    Args:
        sizes: Units of each layer; the last is H, numbers per key and value.
        dropout: Share of units zeroed after each layer while training, in [0, 1).

    Raises:
        ValueError: There is no layer.
    """

    def __init__(self, sizes: Sequence[int] = (64,), dropout: float = 0.0) -> None:
        super().__init__()
        if not sizes:
            raise ValueError("An MLP needs at least one layer; use Identity for none.")
        self.sizes = tuple(sizes)
        self.dropout = dropout

    def make(self, feature_shape: tuple[int, ...]) -> int:
        """Create the layers."""
        widths = [math.prod(feature_shape), *self.sizes]
        self.layers = nn.Sequential()
        for before, after in itertools.pairwise(widths):
            self.layers.extend([nn.Linear(before, after), nn.ReLU(), nn.Dropout(self.dropout)])
        return self.sizes[-1]

    def transform(self, instances: Tensor) -> Tensor:
        """Shape ``(N, H)`` from instances ``(N, ...)``."""
        return self.layers(instances.flatten(1))  # type: ignore[no-any-return]
