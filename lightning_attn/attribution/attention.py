"""Attention weights as an attribution."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import Batch


@register("attention")
class AttentionWeights(Attribution):
    """The weights that the head used; the same for every class."""

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`; in [0, 1]."""
        with torch.no_grad(), evaluating(network):
            return network(batch).attention  # type: ignore[no-any-return]
