"""Heads: from the pooled value to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from torch import Tensor, nn


class Head(nn.Module, ABC):
    """The classifier after pooling."""

    layers: nn.Module

    @abstractmethod
    def make_layers(self, value_size: int, num_classes: int) -> None:
        """Set ``self.layers``; the network calls it once the sizes are known."""

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits ``(..., C)`` from pooled values ``(..., H)``."""
        return cast(Tensor, self.layers(pooled))


class LinearHead(Head):
    """One linear layer."""

    def make_layers(self, value_size: int, num_classes: int) -> None:
        """Create the layer."""
        self.layers = nn.Linear(value_size, num_classes)


class MLPHead(Head):
    """One hidden ReLU layer with dropout.

    Args:
        hidden_size: Width of the hidden layer.
        dropout: Share of hidden units zeroed while training, in [0, 1).
    """

    def __init__(self, hidden_size: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.dropout = dropout

    def make_layers(self, value_size: int, num_classes: int) -> None:
        """Create both layers."""
        self.layers = nn.Sequential(
            nn.Linear(value_size, self.hidden_size),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden_size, num_classes),
        )
