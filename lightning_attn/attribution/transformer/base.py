"""Attributions that look inside self-attention: the base class, and one ordinary pass that keeps what they need."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attn.attribution.base import Attribution
from lightning_attn.attribution.gradients import differentiable
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.parts import exchanged
from lightning_attn.networks.transformer.self_attention import Attend, Projections
from lightning_attn.types import Batch


class TransformerAttribution(Attribution):
    """Attributions made of the self-attention of a :class:`TransformerModel`, which stays as it is.

    An answer is read at the first position, [CLS]; at the first and at the last token of a span where the network
    answers questions, and the explained logit is the sum of the two (``docs/methods.md``, answers to questions).
    Weights are those of evaluation, without dropout.
    """

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`.

        Raises:
            InputError: The network is no :class:`TransformerModel`.
        """
        if not isinstance(network, TransformerModel):
            raise InputError(
                f"{type(self).__name__} looks inside self-attention, and {type(network).__name__} has none that it "
                "could look at: use TransformerNetwork or TransformerQANetwork, or another method."
            )
        # Relevance divides by small numbers: mixed precision, if it is on, is left outside.
        with differentiable(network, batch) as copy, torch.autocast(batch.device.type, enabled=False):
            if target is None:
                with torch.no_grad():
                    target = network.run(network.embed(copy), copy).argmax(dim=-1)
            return self.look(network, copy, target.clone())

    @abstractmethod
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """Attributions, shape ``(B, L)``, in evaluation mode with gradients; ``target`` has shape ``(B,)``."""


@dataclass
class Trace:
    """One ordinary forward pass, in evaluation mode.

    Attributes:
        maps: Weights of each layer, the lowest first, shape ``(B, M, L, L)``; they carry gradients.
        states: What enters each layer, shape ``(B, L, H)``; they carry gradients.
        logit: Of the explained class, shape ``(B,)``.
    """

    maps: list[Tensor]
    states: list[Tensor]
    logit: Tensor

    def gradients(self, tensors: list[Tensor]) -> list[Tensor]:
        """Derivative of each example's logit by ``maps`` or ``states``, of the same shapes."""
        return list(torch.autograd.grad(self.logit.sum(), tensors, retain_graph=True))


def trace(network: TransformerModel, batch: Batch, target: Tensor) -> Trace:
    """Run the model and keep the weights of every layer and what enters it; arguments as in :meth:`look`."""
    attend, layers = _Keep(), set(network.self_attention)
    states: list[Tensor] = []
    embeddings = network.embed(batch).detach().requires_grad_()
    keeping = exchanged(network, lambda part: _KeepInput(part, states) if part in layers else None)
    logits = keeping.run(embeddings, batch, attend)
    return Trace(attend.maps, states, logits.gather(-1, target[:, None]).squeeze(-1))


class _KeepInput(nn.Module):
    """In the place of the self-attention of a layer: does the same, and adds what enters it to ``states``."""

    def __init__(self, attention: nn.Module, states: list[Tensor]) -> None:
        super().__init__()
        self.attention = attention
        self.states = states

    def forward(self, state: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.states.append(state)
        return self.attention(state, *args, **kwargs)


class _Keep(Attend):
    """Computes all weights and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def attend(self, layer: int, projections: Projections) -> Tensor:
        weights = projections.weights()
        self.maps.append(weights)
        return weights @ projections.value


def rows_of_product(maps: list[Tensor], rows: Tensor) -> Tensor:
    """Weighted sum of rows of ``M_last ... M_1``, with ``M_l = row_normalise(map_l + I)``; shape ``(B, L)``.

    Args:
        maps: The lowest layer first, shape ``(B, L, L)``, not negative.
        rows: The weight of each row, shape ``(B, L)``.
    """
    row = rows
    for one in reversed(maps):
        # row @ (map + I) / (row sums of map + 1), without making the matrix
        scaled = row / (one.sum(dim=-1) + 1)
        row = torch.einsum("bq,bqk->bk", scaled, one) + scaled
    return row
