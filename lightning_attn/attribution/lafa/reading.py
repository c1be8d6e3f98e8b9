"""Texts as vectors, by the network's own hidden states; and short marks that tell networks and texts apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_attn.attribution.base import Attribution, OnePassAttribution
from lightning_attn.encoders.pretrained import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import mix
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
    """What the network makes of a batch of texts.

    Attributes:
        vectors: One vector per text, shape ``(B, D)``, float32.
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
    """Turns texts into vectors.

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

    def read(self, batch: Batch, output: AttentionOutput | None = None) -> Reading:
        """The vectors of a batch, in evaluation mode without gradients.

        Args:
            batch: B padded texts.
            output: What the network computed for them in evaluation mode, if it has read them already.

        Raises:
            InputError: The network's output has no states of the layer.
        """
        with torch.no_grad(), evaluating(self.network):
            if output is None:
                output = self.network(batch)
            return Reading(_mean(self._states(batch, output), batch.inner), output.logits.detach())

    def read_along(self, method: Attribution, batch: Batch, target: Tensor | None = None) -> tuple[Tensor, Reading]:
        """What :meth:`Attribution.attribute` and :meth:`read` give, of one pass where the method takes no more."""
        if isinstance(method, OnePassAttribution):
            attributions, output = method.attribute_with_output(self.network, batch, target)
            return attributions, self.read(batch, output)
        return method.attribute(self.network, batch, target), self.read(batch)

    def _states(self, batch: Batch, output: AttentionOutput) -> Tensor:
        """States of the layer, shape ``(B, L, ...)``; or ``(B, D)`` if it is one vector per text."""
        if self.layer == "pooled":
            return torch.einsum("bl,blh->bh", output.attention, output.values)
        name = "embeddings" if self.layer.startswith(HIDDEN) else self.layer
        states: Tensor | None = getattr(output, name)
        if states is None:
            raise InputError(f"The output of {type(self.network).__name__} has no {name}: choose another layer.")
        encoder = _pretrained(self.network)
        if self.layer.startswith(HIDDEN) and encoder is not None:
            return encoder.hidden_states(states, batch)[int(self.layer.removeprefix(HIDDEN))]
        return states


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def fingerprint(network: AttentionNetwork) -> str:
    """SHA-256 of a built network's weights and schema, as 64 hexadecimal digits; the same on any device.

    What a mitigation has in the checkpoint is left out: it only matters in training.
    """
    state = hashlib.sha256()
    _update(state, network.schema.as_dict())
    _update(state, network.inference_state())
    return state.hexdigest()


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights by name, as 64 hexadecimal digits; the same in any order and on any device."""
    state = hashlib.sha256()
    _update(state, dict(weights))
    return state.hexdigest()


def text_digests(batch: Batch) -> Tensor:
    """A number for the words of each text and of its query, shape ``(B,)``, int64; special tokens do not count.

    Two different texts share one by a chance of 1 in 2**64.
    """
    digests = _sequences(batch.inputs, batch.inner)
    if batch.query is not None and batch.query_valid is not None:
        digests = digests + mix(_sequences(batch.query, batch.query_valid))
    return digests


def _sequences(ids: Tensor, counted: Tensor) -> Tensor:
    places = counted.long().cumsum(dim=1)
    codes = mix(mix(ids) + mix(places))
    return codes.masked_fill(~counted, 0).sum(dim=1)


def _update(state: _Hash, value: Any) -> None:
    """Feed a value: tensors with their shape and type, collections of them, plain values."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        state.update(f"{data.dtype}{tuple(data.shape)}".encode())
        state.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            state.update(f"{name}:".encode())
            _update(state, value[name])
    elif isinstance(value, (list, tuple)):
        state.update(f"[{len(value)}]".encode())
        for item in value:
            _update(state, item)
    else:
        state.update(json.dumps(value).encode())


def _mean(states: Tensor, inner: Tensor) -> Tensor:
    if states.dim() == 2:
        return states.float()
    weights = inner / inner.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,bld->bd", weights.float(), states.flatten(2).float())


def _pretrained(network: AttentionNetwork) -> PretrainedEncoder | None:
    encoder = getattr(network, "encoder", None)
    return encoder if isinstance(encoder, PretrainedEncoder) else None
