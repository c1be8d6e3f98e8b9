"""What every experiment begins with: a padded part of the batch, and what the network computes for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops import parts
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import AttentionOutput, Batch

Result = TypeVar("Result")


def by_parts(function: Callable[[Batch], Result], batch: Batch, max_tokens: int) -> Result:
    """Call ``function`` on padded parts, as :func:`lightning_attn.ops.parts.by_parts` does; no gradients."""
    with torch.no_grad():
        return parts.by_parts(lambda rows: function(batch.select(rows).padded()), batch.valid, max_tokens)


def computed(network: AttentionNetwork, batch: Batch) -> tuple[AttentionOutput, Batch]:
    """What the network computes in evaluation mode for a batch, and the batch with its query read."""
    with torch.no_grad(), evaluating(network):
        batch = network.read_query(batch)
        return network(batch), batch
