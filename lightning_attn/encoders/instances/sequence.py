"""A convolution over each sequence of a bag."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_attn.encoders.instances.base import InstanceEncoder
from lightning_attn.errors import InputError


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
        found = self.convolution(instances.transpose(1, 2)).amax(dim=-1)
        return self.dropout(nn.functional.relu(found))  # type: ignore[no-any-return]
