"""Variants of bags: each instance is encoded and scored once, because it is read by itself."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attention.base import Attention, AttentionLayer
from lightning_attn.attention.scorers import AdditiveAttention, DotAttention, GatedAttention, KeylessAttention
from lightning_attn.encoders.instances import InstanceEncoder
from lightning_attn.networks.bags import BagNetwork
from lightning_attn.ops.softmax import masked_softmax
from lightning_attn.perturbation.perturbations import Delete, Overwrite, Perturbation
from lightning_attn.perturbation.reader import VariantReader, hooked, inherits_unchanged
from lightning_attn.types import Batch

#: Score functions that look at one key at a time.
_SCORES = (AdditiveAttention.score, DotAttention.score, GatedAttention.score, KeylessAttention.score)


class BagReader(VariantReader):
    """``head( sum_i a_i v_i )`` of variants: only softmax, weighted sum and classifier are computed for each.

    Under mixed precision it computes in the precision of the weights.

    Args:
        network: One whose every part is as :func:`bag_reader` asks.
        perturbation: What happens to removed instances.
    """

    shares = True

    def __init__(self, network: BagNetwork, perturbation: Perturbation) -> None:
        self.network = network
        self.perturbation = perturbation
        self._read: tuple[Batch, Tensor, Tensor] | None = None

    @override
    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
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
            by_bag = weights.new_zeros(len(bags), int(counts.max()), weights.shape[1])
            by_bag[row, column] = weights
            return self.network.classify_many(values[bags], by_bag, batch.select(bags))[row, column]

    def _instances(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values ``(B, L + 1, H)`` and scores ``(B, L + 1)``; the last of each is that of an overwritten instance."""
        if self._read is None or self._read[0] is not batch:
            inputs = batch.padded().inputs
            with_blank = torch.cat([inputs, torch.zeros_like(inputs[:, :1])], dim=1)
            values = self.network.encoder(with_blank)
            scores = self.network.attention.score(values) / self.network.attention.temperature
            self._read = batch, values, scores
        return self._read[1], self._read[2]


def bag_reader(network: BagNetwork, perturbation: Perturbation) -> BagReader | None:
    """The fast path of a :class:`BagNetwork`; None if the arithmetic of some part of it is not exactly ours.

    What is asked: no method of :class:`BagNetwork` or of the encoder's base class is overridden, the attention scores
    instances one by one, the perturbation is one of ours, weights are of full precision, and no forward hook listens.

    Args:
        network: A network of bags.
        perturbation: What happens to removed instances.
    """
    layer = network.attention
    methods = ("embed", "encode", "classify", "classify_many", "forward", "read_query")
    if (
        inherits_unchanged(network, BagNetwork, *methods)
        and inherits_unchanged(network.encoder, InstanceEncoder, "forward")
        and inherits_unchanged(layer, AttentionLayer, "forward")
        and inherits_unchanged(layer, Attention, "raw_scores")
        and type(layer).score in _SCORES
        and "score" not in vars(layer)
        and type(perturbation).apply in (Delete.apply, Overwrite.apply)
        and {parameter.dtype for parameter in network.parameters()} in ({torch.float32}, {torch.float64})
        and not hooked(network)
    ):
        return BagReader(network, perturbation)
    return None
