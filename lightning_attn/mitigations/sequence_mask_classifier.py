"""Estimators of P(y | attention) that read the weights in their order along the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attn.mitigations.mask_classifier import MaskClassifier, mask_features
from lightning_attn.ops.recurrent import bidirectional_states, last_states


class ConvolutionalMaskClassifier(MaskClassifier):
    """Two convolutions over the attendable positions, pooled by mean and maximum: patterns of neighbouring weights.

    Args:
        size: Filters of each convolution.
        width: Positions that a filter sees, odd.

    Raises:
        ValueError: ``width`` is even.
    """

    def __init__(self, size: int = 16, width: int = 5) -> None:
        if width % 2 == 0:
            raise ValueError(f"ConvolutionalMaskClassifier needs an odd width, got {width}.")
        super().__init__()
        self.size = size
        self.first = nn.Conv1d(3, size, width, padding=width // 2)
        self.second = nn.Conv1d(size, size, width, padding=width // 2)

    def make_layers(self, outputs: int) -> None:
        """Create the output layer."""
        self.output = nn.Linear(2 * self.size, outputs)

    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        """Logits, shape ``(B, outputs)``."""
        features, here = _in_front(attention, allowed)
        hidden = features.transpose(1, 2)
        for layer in (self.first, self.second):
            hidden = layer(hidden).relu() * here[:, None]  # as if padding were not there
        mean = hidden.sum(dim=-1) / here.sum(dim=-1, keepdim=True).clamp(min=1)
        return self.output(torch.cat([mean, hidden.amax(dim=-1)], dim=-1))  # type: ignore[no-any-return]


class RecurrentMaskClassifier(MaskClassifier):
    """A bidirectional GRU over the attendable positions; its last states are read.

    Args:
        size: Hidden units per direction.
    """

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.size = size
        self.recurrent = nn.GRU(3, size, batch_first=True, bidirectional=True)

    def make_layers(self, outputs: int) -> None:
        """Create the output layer."""
        self.output = nn.Linear(2 * self.size, outputs)

    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        """Logits, shape ``(B, outputs)``."""
        features, here = _in_front(attention, allowed)
        if not len(features):
            return self.output(features.new_zeros(0, 2 * self.size))  # type: ignore[no-any-return]
        lengths = here.sum(dim=-1).clamp(min=1)
        states = bidirectional_states(self.recurrent, features, lengths)
        return self.output(last_states(states, lengths))  # type: ignore[no-any-return]


def _in_front(attention: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Features of the attendable positions one after another, shape ``(B, L, 3)``, and where they stand, ``(B, L)``."""
    order = (~allowed).to(torch.int8).argsort(dim=-1, stable=True)
    features = mask_features(attention, allowed).gather(1, order[..., None].expand(-1, -1, 3))
    return features, allowed.gather(1, order)
