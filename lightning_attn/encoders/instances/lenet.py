"""A small convolutional network on each image of a bag."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_attn.encoders.instances.base import InstanceEncoder
from lightning_attn.errors import InputError


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
