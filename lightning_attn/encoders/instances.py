"""Instances to keys and values, each by itself: `InstanceEncoder` and the encoders of bags."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

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


class Identity(InstanceEncoder):
    """The features themselves, flattened: for embeddings that another network has made."""

    def make(self, feature_shape: tuple[int, ...]) -> int:
        """There are no layers; H is the number of features."""
        return math.prod(feature_shape)

    def transform(self, instances: Tensor) -> Tensor:
        """Shape ``(N, H)`` from instances ``(N, ...)``."""
        return instances.flatten(1)


class MLP(InstanceEncoder):
    """Linear layers with ReLU after each, on the flattened features.

    Args:
        sizes: Units of each layer; the last is H, numbers per key and value.
        dropout: Share of units zeroed after each layer while training, in [0, 1).

    Raises:
        InputError: There is no layer.
    """

    def __init__(self, sizes: Sequence[int] = (64,), dropout: float = 0.0) -> None:
        super().__init__()
        if not sizes:
            raise InputError("An MLP needs at least one layer; use Identity for none.")
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


class LeNet(InstanceEncoder):
    """Two convolutions 5 x 5, each with ReLU and 2 x 2 max pooling, and one linear layer with ReLU.

    As published, with 20 and 50 channels, but the convolutions keep the size of the image, so that images of 8 x 8
    pixels do too; the published ones shrink it by 4 pixels each and need 16 x 16.

    Source: LeCun et al., Proceedings of the IEEE 1998; as the encoder of bags in Ilse, Tomczak and Welling, ICML 2018,
    https://arxiv.org/abs/1802.04712, table 8.

    Args:
        size: H, units of the linear layer; 500 as published.
        channels: Channels of the two convolutions.
        dropout: Share of the linear layer's units zeroed while training, in [0, 1).
    """

    def __init__(self, size: int = 500, channels: tuple[int, int] = (20, 50), dropout: float = 0.0) -> None:
        super().__init__()
        self.units = size
        self.channels = channels
        self.dropout = dropout

    def make(self, feature_shape: tuple[int, ...]) -> int:
        """Create the layers.

        Raises:
            InputError: An instance is no image of shape (channels, height, width), or smaller than 4 x 4.
        """
        if len(feature_shape) != 3 or min(feature_shape[1:]) < 4:
            raise InputError(
                f"LeNet reads images of shape (channels, height, width), at least 4 x 4 pixels, but the instances have "
                f"the shape {feature_shape}; use MLP for other features."
            )
        color, height, width = feature_shape
        first, second = self.channels
        self.layers = nn.Sequential(
            nn.Conv2d(color, first, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * (height // 4) * (width // 4), self.units),
            nn.ReLU(),
            nn.Dropout(self.dropout),
        )
        return self.units

    def transform(self, instances: Tensor) -> Tensor:
        """Shape ``(N, H)`` from images ``(N, channels, height, width)``."""
        return self.layers(instances)  # type: ignore[no-any-return]


class SequenceCNN(InstanceEncoder):
    """Finds patterns wherever they stand in a sequence: a convolution with ReLU, its maximum over all places.

    Source: Alipanahi et al., Nature Biotechnology 2015, https://doi.org/10.1038/nbt.3300, for motifs in DNA.

    Args:
        size: H, number of patterns.
        width: Places that a pattern covers.
        dropout: Share of the maxima zeroed while training, in [0, 1).
    """

    def __init__(self, size: int = 64, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.patterns = size
        self.width = width
        self.dropout = nn.Dropout(dropout)

    def make(self, feature_shape: tuple[int, ...]) -> int:
        """Create the convolution.

        Raises:
            InputError: An instance is no sequence of shape (length, letters), or shorter than a pattern.
        """
        if len(feature_shape) != 2 or feature_shape[0] < self.width:
            raise InputError(
                f"SequenceCNN reads sequences of shape (length, letters), at least width={self.width} long, but the "
                f"instances have the shape {feature_shape}; use MLP for other features."
            )
        self.convolution = nn.Conv1d(feature_shape[1], self.patterns, self.width)
        return self.patterns

    def transform(self, instances: Tensor) -> Tensor:
        """Shape ``(N, H)`` from sequences ``(N, length, letters)``."""
        features = self.convolution(instances.transpose(1, 2)).amax(dim=-1)
        return self.dropout(nn.functional.relu(features))  # type: ignore[no-any-return]
