"""Variants of bags: each instance is encoded and scored once, because it is read by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_attn.attention.base import Attention, AttentionLayer
from lightning_attn.attention.scorers import AdditiveAttention, DotAttention, GatedAttention, KeylessAttention
from lightning_attn.encoders.instances import InstanceEncoder
from lightning_attn.ops.softmax import masked_softmax
from lightning_attn.perturbation.removal import Removal, follows, hooked
from lightning_attn.perturbation.sweep import Delete, Overwrite, Perturbation
from lightning_attn.types import Batch

if TYPE_CHECKING:
    from lightning_attn.networks.bags import BagNetwork

#: Score functions that look at one key at a time.
_SCORES = (AdditiveAttention.score, DotAttention.score, GatedAttention.score, KeylessAttention.score)


class BagRemoval(Removal):
    """``head( sum_i a_i v_i )`` of variants: only softmax, weighted sum and head are computed for each.

    Under mixed precision it computes in the precision of the weights.

    Args:
        network: One that :func:`bag_removal` has found to be known.
        perturbation: What happens to removed instances.
    """

    shares = True

    def __init__(self, network: BagNetwork, perturbation: Perturbation) -> None:
        self.network = network
        self.perturbation = perturbation
        self._read: tuple[Batch, Tensor, Tensor] | None = None

    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
        """See :meth:`Removal.logits`."""
        with torch.autocast(batch.device.type, enabled=False):
            values, scores = self._instances(batch)
            valid, scores, blank = batch.valid[examples], scores[examples, :-1], scores[examples, -1:]
            kept = valid & keep
            if isinstance(self.perturbation, Delete):
                weights = masked_softmax(scores, kept)
                weights = torch.cat([weights, torch.zeros_like(blank)], dim=1)
            else:
                weights = masked_softmax(torch.where(kept, scores, blank), valid)
                overwritten = (weights * ~kept).sum(dim=1, keepdim=True)
                weights = torch.cat([weights * kept, overwritten], dim=1)
            bags, row = torch.unique_consecutive(examples, return_inverse=True)
            counts = torch.bincount(row)
            column = torch.arange(len(row), device=row.device) - (counts.cumsum(dim=0) - counts)[row]
            laid = weights.new_zeros(len(bags), int(counts.max()), weights.shape[1])
            laid[row, column] = weights
            return self.network.classify_many(values[bags], laid, batch.select(bags))[row, column]

    def _instances(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values ``(B, L + 1, H)`` and scores ``(B, L + 1)``; the last of each is that of an overwritten instance."""
        if self._read is None or self._read[0] is not batch:
            inputs = batch.padded().inputs
            with_blank = torch.cat([inputs, torch.zeros_like(inputs[:, :1])], dim=1)
            values = self.network.encoder(with_blank)
            scores = self.network.attention.score(values) / self.network.attention.temperature
            self._read = batch, values, scores
        return self._read[1], self._read[2]


def bag_removal(network: BagNetwork, known: type[BagNetwork], perturbation: Perturbation) -> BagRemoval | None:
    """A shortcut for :class:`BagNetwork`; None if something in it is not known exactly.

    What is asked: no method of ``known`` or of the encoder's base class is overridden, the attention scores instances
    one by one, the perturbation is one of ours, weights are of full precision, and no forward hook listens.

    Args:
        network: The network that asks.
        known: :class:`BagNetwork`, which calls this.
        perturbation: What happens to removed instances.
    """
    layer = network.attention
    if (
        follows(network, known, "embed", "encode", "classify", "classify_many", "forward", "read_query")
        and follows(network.encoder, InstanceEncoder, "forward")
        and follows(layer, AttentionLayer, "forward")
        and follows(layer, Attention, "raw_scores")
        and type(layer).score in _SCORES
        and "score" not in vars(layer)
        and type(perturbation).apply in (Delete.apply, Overwrite.apply)
        and {parameter.dtype for parameter in network.parameters()} in ({torch.float32}, {torch.float64})
        and not hooked(network)
    ):
        return BagRemoval(network, perturbation)
    return None
