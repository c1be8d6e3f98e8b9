"""Estimators of P(y | attention): what can be told about the label from the weights alone."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.ops.recurrent import bidirectional_states, last_states


def mask_features(attention: Tensor, allowed: Tensor) -> Tensor:
    """Per-position description of a mask that holds nothing of the text.

    Args:
        attention: Shape ``(B, L)``.
        allowed: Positions that may be attended, shape ``(B, L)``, bool.

    Returns:
        ``a_i * n`` (1 under uniform attention), ``ln(a_i * n)`` clipped at -10, and the place in the text from 0 to 1;
        shape ``(B, L, 3)``, 0 where not allowed.
    """
    count = allowed.sum(dim=-1, keepdim=True)
    ratio = attention * count
    rank = allowed.cumsum(dim=-1) - 1
    place = rank / (count - 1).clamp(min=1)
    features = torch.stack([ratio, ratio.clamp_min(4.5e-5).log(), place.to(ratio.dtype)], dim=-1)
    return features.masked_fill(~allowed[..., None], 0.0)


def mask_places(attention: Tensor, allowed: Tensor, place: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the mass of a mask is.

    Args:
        attention: Shape ``(B, L)``.
        allowed: Positions that may be attended, shape ``(B, L)``, bool.
        place: Of each position, from 0 to 1, shape ``(B, L)``; see :func:`mask_features`.
        bins: Equal parts of the text.

    Returns:
        Mean and variance of the place, each ``(B, 1)``, and the mass in each part, ``(B, bins)``.
    """
    mean = (attention * place).sum(dim=-1, keepdim=True)
    variance = (attention * (place - mean).square()).sum(dim=-1, keepdim=True)
    part = (place * bins).long().clamp(max=bins - 1)
    mass = attention.new_zeros(len(attention), bins).scatter_add(-1, part, attention * allowed)
    return mean, variance, mass


class MaskClassifier(nn.Module, ABC):
    """A small network from attention weights to label logits; it never sees the text."""

    @abstractmethod
    def make_layers(self, outputs: int) -> None:
        """Create the layers for ``outputs`` logits."""

    @abstractmethod
    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        """Logits, shape ``(B, outputs)``, from weights ``(B, L)`` and attendable positions ``(B, L)``."""


class SetMaskClassifier(MaskClassifier):
    """A set network: position features through an MLP, pooled by mean and by attention, then a second MLP.

    Source: Zaheer et al., Deep Sets, NeurIPS 2017, https://arxiv.org/abs/1703.06114; the features are ours.

    Args:
        size: Hidden units.
    """

    #: How many of the columns of :func:`mask_features` it reads.
    columns = 3

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.size = size
        self.position = nn.Sequential(nn.Linear(self.columns, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU())

    def make_layers(self, outputs: int) -> None:
        """Create the output layers."""
        self.output = nn.Sequential(nn.Linear(2 * self.size, self.size), nn.ReLU(), nn.Linear(self.size, outputs))

    @override
    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        hidden = self.position(mask_features(attention, allowed)[..., : self.columns])
        pools = torch.stack([allowed / allowed.sum(dim=-1, keepdim=True).clamp(min=1), attention], dim=1)
        return self.output(torch.bmm(pools.to(hidden.dtype), hidden).flatten(1))  # type: ignore[no-any-return]


class BagMaskClassifier(SetMaskClassifier):
    """A :class:`SetMaskClassifier` that does not read the places: the order of the instances of a bag says nothing.

    Args:
        size: Hidden units.
    """

    columns = 2


class SummaryMaskClassifier(MaskClassifier):
    """Logistic regression on summary statistics: length, entropy, peak, mean and spread of places, mass in tenths.

    The smallest estimator: hardly ever overfit, and blind to whatever the statistics leave out.
    """

    bins = 10

    def make_layers(self, outputs: int) -> None:
        """Create the one layer."""
        self.output = nn.Linear(5 + self.bins, outputs)

    @override
    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        return self.output(self.statistics(attention, allowed))  # type: ignore[no-any-return]

    def statistics(self, attention: Tensor, allowed: Tensor) -> Tensor:
        """What it reads, all of the order of 1, shape ``(B, 15)``; arguments as for :meth:`forward`."""
        count = allowed.sum(dim=-1).clamp(min=1).to(attention.dtype)
        place = mask_features(attention, allowed)[..., 2]
        entropy = -(attention * attention.clamp_min(torch.finfo(attention.dtype).tiny).log()).sum(dim=-1)
        mean, variance, mass = mask_places(attention, allowed, place, self.bins)
        summary = torch.stack([count.log() / 4, entropy - count.log(), attention.amax(dim=-1)], dim=-1)
        return torch.cat([summary, mean, variance.clamp(min=0).sqrt(), mass], dim=-1)


class ConvolutionalMaskClassifier(MaskClassifier):
    """Two convolutions over the attendable positions, pooled by mean and maximum: patterns of neighbouring weights.

    Args:
        size: Filters of each convolution.
        width: Positions that a filter sees, odd.

    Raises:
        InputError: ``width`` is even.
    """

    def __init__(self, size: int = 16, width: int = 5) -> None:
        if width % 2 == 0:
            raise InputError(f"ConvolutionalMaskClassifier needs an odd width, got {width}.")
        super().__init__()
        self.size = size
        self.first = nn.Conv1d(3, size, width, padding=width // 2)
        self.second = nn.Conv1d(size, size, width, padding=width // 2)

    def make_layers(self, outputs: int) -> None:
        """Create the output layer."""
        self.output = nn.Linear(2 * self.size, outputs)

    @override
    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
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

    @override
    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
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
