"""Importance of positions: the base class `Attribution`, and the methods by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.registry import Registry
from lightning_attn.types import AttentionOutput, Batch

#: Attribution methods by the name that the command line knows.
METHODS: Registry[type[Attribution]] = Registry("attribution method", "methods")

#: Class decorator that makes a method known under a name.
register = METHODS.register


def get(name: str, **options: Any) -> Attribution:
    """A method by name, with options for its constructor.

    Raises:
        InputError: There is no method of that name.
    """
    return METHODS[name](**options)


class Attribution(ABC):
    """A way to say how important each position was."""

    def attribute(self, network: AttentionNetwork, batch: Batch, target: Tensor | None = None) -> Tensor:
        """Say how important every position was, in evaluation mode, under any of PyTorch's gradient modes.

        Args:
            network: Built network; parameters, their gradients and the modes of its modules stay as they are.
            batch: B examples.
            target: Class to explain, shape ``(B,)``; None means the predicted class.

        Returns:
            Shape ``(B, L)``, without gradient, 0 on padding and special positions. An example gets the same
            numbers alone and in a padded batch.
        """
        batch = batch.padded()
        return torch.where(batch.inner, self.score(network, batch, target).detach(), 0.0)

    @abstractmethod
    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """Attributions ``(B, L)``, anything on padding and special positions; arguments as in :meth:`attribute`."""


class OnePassAttribution(Attribution):
    """An attribution made of a single pass over the batch, whose output is at hand for whoever needs that too."""

    def attribute_with_output(
        self, network: AttentionNetwork, batch: Batch, target: Tensor | None = None
    ) -> tuple[Tensor, AttentionOutput]:
        """:meth:`attribute`, and what the network computed for the padded batch, without gradients."""
        batch = batch.padded()
        attributions, output = self.score_with_output(network, batch, target)
        return torch.where(batch.inner, attributions.detach(), 0.0), output

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`; to be changed in :meth:`score_with_output`."""
        return self.score_with_output(network, batch, target)[0]

    @abstractmethod
    def score_with_output(
        self, network: AttentionNetwork, batch: Batch, target: Tensor | None
    ) -> tuple[Tensor, AttentionOutput]:
        """:meth:`score`, and what the network computed for the batch, without gradients."""
