"""Classifiers: from the pooled value, and the query where there is one, to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """The classifier after pooling."""

    layers: nn.Module

    @abstractmethod
    def make_layers(self, value_size: int, num_classes: int) -> None:
        """Set ``self.layers``; the network calls it once the sizes are known."""

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits ``(..., C)`` from pooled values ``(..., H)``."""
        return cast(Tensor, self.layers(pooled))


class LinearClassifier(Classifier):
    """One linear layer."""

    def make_layers(self, value_size: int, num_classes: int) -> None:
        """Create the layer."""
        self.layers = nn.Linear(value_size, num_classes)


class MLPClassifier(Classifier):
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


class PairClassifier(nn.Module):
    """``Linear(tanh(Wp c + Wq z))``, from the pooled value ``c`` and the query's vector ``z``.

    Source: the code of Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, for question answering and
    inference; the hidden layer has half the size of ``c``. There, answers that a text cannot have get no probability;
    here all classes are open.

    Args:
        size: Hidden units; None means half the size of the values, as published.
        dropout: Share of hidden units zeroed while training, in [0, 1).
    """

    def __init__(self, size: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.size = size
        self.dropout = nn.Dropout(dropout)

    def make_layers(self, value_size: int, query_size: int, num_classes: int) -> None:
        """Create ``Wp``, ``Wq`` and the output layer; the network calls it once the sizes are known."""
        size = self.size or max(1, value_size // 2)
        self.project = nn.Linear(value_size, size)
        self.project_query = nn.Linear(query_size, size)
        self.output = nn.Linear(size, num_classes)

    def forward(self, pooled: Tensor, query: Tensor) -> Tensor:
        """Logits ``(B, C)`` from pooled values ``(B, H)`` and queries ``(B, Q)``."""
        hidden = torch.tanh(self.project(pooled) + self.project_query(query))
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]
