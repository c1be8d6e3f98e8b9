"""Max pooling, seen as attention: `MaxAttention`."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.attention.base import AttentionLayer
from lightning_attn.errors import InputError
from lightning_attn.ops.bag_reduce import maximum, spread, weighted_sum
from lightning_attn.types import Batch


class MaxAttention(AttentionLayer):
    """``a_i``: the share of the features whose largest value in the bag is that of instance i; ties share.

    It has no parameters. Weights drawn at random would give no maximum, so random pretraining is refused.
    """

    def __init__(self) -> None:
        super().__init__()

    def feature_weights(self, keys: Tensor, batch: Batch) -> Tensor:
        """For each feature, 1 over the number of instances that have its largest value, at these; 0 elsewhere.

        Args:
            keys: Shape ``(B, L, H)``, or ``(N, H)`` if the batch is packed.
            batch: Says where instances stand.

        Returns:
            Same shape as ``keys``, without gradient.
        """
        valid = batch.valid.to(keys.dtype)
        here = valid.new_ones(len(keys), 1) if batch.packed else valid[..., None]
        largest = here * (keys.detach() == spread(maximum(keys, batch), batch))
        return largest / spread(weighted_sum(largest, valid, batch), batch).clamp(min=1)

    def raw_scores(self, keys: Tensor, batch: Batch) -> Tensor:
        """Logarithm of the weights, shape ``(B, L)``, or ``(N,)`` if the batch is packed; the lowest float for 0.

        Raises:
            InputError: Training, and the mitigation wants random weights.
        """
        if self.training and self.mitigation.phase == "random":
            raise InputError(
                "Max pooling has no weights that could be drawn at random: train it without RandomPretraining."
            )
        weights = self.feature_weights(keys, batch).mean(dim=-1)
        return weights.log().clamp_min(torch.finfo(weights.dtype).min)
