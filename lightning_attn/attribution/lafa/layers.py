"""Texts as vectors: the hidden states of a layer of the network itself, averaged over the words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attn.encoders.pretrained import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import AttentionOutput, Batch

#: Layers that every network has, and what they are.
LAYERS = {
    "embeddings": "word embeddings, before the encoder",
    "keys": "what the attention layer scores: the encoder's states",
    "values": "what the attention weights multiply",
    "pooled": "the sum of the values, weighted by attention",
}
HIDDEN = "hidden:"  # and a number: that layer of a PretrainedEncoder, 0 is below the first


@dataclass
class Reading:
    """What was seen of one forward pass.

    Attributes:
        vectors: One vector a text, shape ``(B, D)``, float32.
        logits: Shape ``(B, C)``.
    """

    vectors: Tensor
    logits: Tensor


def check_layer(network: AttentionNetwork, layer: str) -> None:
    """See whether a network has a layer.

    Raises:
        InputError: It has not.
    """
    if layer in LAYERS:
        return
    names = ", ".join(LAYERS)
    if not layer.startswith(HIDDEN) or not layer.removeprefix(HIDDEN).isdigit():
        raise InputError(
            f"There is no layer {layer!r}: choose {names}, or {HIDDEN}K for layer K of a PretrainedEncoder."
        )
    encoder = _pretrained(network)
    if encoder is None:
        raise InputError(f"The network has no PretrainedEncoder, so no layer {layer!r}: choose {names}.")
    count = int(encoder.backbone.config.num_hidden_layers)
    if int(layer.removeprefix(HIDDEN)) > count:
        raise InputError(f"The network's encoder uses {count} layers: choose {HIDDEN}0 to {HIDDEN}{count}.")


class Reader:
    """Turns texts into vectors, in a pass of its own or while something else runs the network.

    A text's vector is the mean of the layer's states over the positions that are valid and not special; that is our
    choice, the paper of LAFA does not say. ``pooled`` is one vector already.

    Args:
        network: Built.
        layer: One of `LAYERS`, or ``hidden:K``.

    Raises:
        InputError: The network has no such layer.
    """

    def __init__(self, network: AttentionNetwork, layer: str) -> None:
        check_layer(network, layer)
        self.network = network
        self.layer = layer

    def read(self, batch: Batch) -> Reading:
        """The vectors of a batch, by one forward pass in evaluation mode without gradients."""
        with torch.no_grad(), evaluating(self.network), self.watching(batch) as seen:
            self.network(batch)
        return seen[0]

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[list[Reading]]:
        """Watch the network: its first pass over the batch as it is gives the one reading.

        Passes over other rows or other embeddings are left alone, so the list stays empty if there are only those.

        Args:
            batch: B padded texts; a copy of it counts as the same.
        """
        seen: list[Reading] = []
        states: list[Tensor] = []
        encoder = _pretrained(self.network)

        def ask(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "output_hidden_states": True}

        def keep_states(_: nn.Module, args: Any, output: Any) -> None:
            states[:] = [output.hidden_states[int(self.layer.removeprefix(HIDDEN))]]

        def keep_keys(_: nn.Module, args: Any) -> None:
            states[:] = [args[0]]

        def look(_: nn.Module, args: Any, kwargs: dict[str, Any], output: AttentionOutput) -> None:
            if not seen and self._same(batch, args[0], kwargs):
                chosen = self._states(states, args[0], kwargs, output).detach()
                seen.append(Reading(_mean(chosen, batch.inner), output.logits.detach()))

        with ExitStack() as hooks:
            if self.layer.startswith(HIDDEN) and encoder is not None:
                hooks.callback(encoder.backbone.register_forward_pre_hook(ask, with_kwargs=True).remove)
                hooks.callback(encoder.backbone.register_forward_hook(keep_states).remove)
            if self.layer == "keys":
                hooks.callback(self.network.attention.register_forward_pre_hook(keep_keys).remove)
            hooks.callback(self.network.register_forward_hook(look, with_kwargs=True).remove)
            yield seen

    def _same(self, batch: Batch, given: Batch, kwargs: dict[str, Any]) -> bool:
        if kwargs.get("attention") is not None or given.inputs.shape != batch.inputs.shape:
            return False
        if not torch.equal(given.inputs, batch.inputs):
            return False
        embeddings = kwargs.get("embeddings")
        if embeddings is None:
            return True
        with torch.no_grad():
            return torch.equal(embeddings, self.network.embed(given))

    def _states(self, kept: list[Tensor], batch: Batch, kwargs: dict[str, Any], output: AttentionOutput) -> Tensor:
        """States of the layer, shape ``(B, L, ...)``; or ``(B, D)`` if it is one vector a text."""
        if self.layer == "embeddings":
            embeddings = kwargs.get("embeddings")
            return self.network.embed(batch) if embeddings is None else embeddings
        if self.layer == "values":
            return output.values
        if self.layer == "pooled":
            return torch.einsum("bl,blh->bh", output.attention, output.values)
        return kept[0]


def _mean(states: Tensor, inner: Tensor) -> Tensor:
    if states.dim() == 2:
        return states.float()
    weights = inner / inner.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,bld->bd", weights.float(), states.flatten(2).float())


def _pretrained(network: AttentionNetwork) -> PretrainedEncoder | None:
    encoder = getattr(network, "encoder", None)
    return encoder if isinstance(encoder, PretrainedEncoder) else None
