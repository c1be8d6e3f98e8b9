"""What a network is, as a short string: what was computed with one must not be used with another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.randomness import mix
from lightning_attn.types import Batch


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
