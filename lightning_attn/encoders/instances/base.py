"""Instances to keys and values: the base class `InstanceEncoder`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn

from lightning_attn.errors import InputError
from lightning_attn.types import DataSchema


class InstanceEncoder(nn.Module, ABC):
    """Turns the features of an instance into H numbers, its key and its value at once.

    An instance is encoded by itself: what its bag holds beside it changes nothing, so values are local.

    Attributes:
        size: H; known after :meth:`make_layers`.
        feature_shape: Shape of one instance's features; known after :meth:`make_layers`.
    """

    size: int
    feature_shape: tuple[int, ...]

    def make_layers(self, schema: DataSchema) -> None:
        """Make the layers for these instances.

        Raises:
            InputError: The data are token ids, or their features do not suit the encoder.
        """
        if schema.feature_shape is None:
            raise InputError(f"{type(self).__name__} reads features of instances, but the data are token ids.")
        self.feature_shape = tuple(schema.feature_shape)
        self.size = self.make(self.feature_shape)

    @abstractmethod
    def make(self, feature_shape: tuple[int, ...]) -> int:
        """Create the layers for features of this shape; returns H."""

    @abstractmethod
    def transform(self, instances: Tensor) -> Tensor:
        """Shape ``(N, H)`` from instances ``(N, ...)``."""

    def forward(self, features: Tensor) -> Tensor:
        """Shape ``(B, L, H)`` from padded features ``(B, L, ...)``, or ``(N, H)`` from packed ones ``(N, ...)``."""
        places = features.shape[: features.dim() - len(self.feature_shape)]
        flat = features.reshape(math.prod(places), *self.feature_shape)
        return self.transform(flat).view(*places, self.size)
