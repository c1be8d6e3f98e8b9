"""Sums, maxima and softmax over the instances of each bag, for packed and for padded batches.

Packed, the cost is that of the instances there are, whatever the sizes of the bags.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attn.types import Batch


def weighted_sum(values: Tensor, weights: Tensor, batch: Batch) -> Tensor:
    """``sum_i w_i v_i`` of each bag, shape ``(B, H)``.

    Args:
        values: Shape ``(B, L, H)``, or ``(N, H)`` if the batch is packed.
        weights: Shape ``(B, L)``, 0 where no instance stands.
        batch: Says where instances stand.
    """
    if batch.packed and len(values) != batch.valid.numel():
        counts = torch.bincount(_bags(batch), minlength=len(batch))
        return F.embedding_bag(
            torch.arange(len(values), device=values.device),
            values,
            counts.cumsum(dim=0) - counts,
            mode="sum",
            per_sample_weights=batch.at_instances(weights).to(values.dtype),
        )
    return torch.einsum("bl,blh->bh", weights, batch.unpack(values))


def maximum(values: Tensor, batch: Batch) -> Tensor:
    """Largest value of each bag in each column, shape ``(B, H)``; without gradient.

    Args:
        values: See :func:`weighted_sum`.
        batch: See :func:`weighted_sum`.
    """
    values = values.detach()
    lowest = values.new_full((len(batch), values.shape[-1]), torch.finfo(values.dtype).min)
    if not batch.packed:
        return torch.where(batch.valid[..., None], values, lowest[:, None]).amax(dim=1)
    return lowest.scatter_reduce(0, _bags(batch)[:, None].expand_as(values), values, "amax")


def spread(bags: Tensor, batch: Batch) -> Tensor:
    """What belongs to a bag, shape ``(B, H)``, at each of its instances: ``(B, L, H)``, or ``(N, H)`` if packed."""
    if not batch.packed:
        return bags[:, None].expand(-1, batch.valid.shape[1], -1)
    return bags.index_select(0, _bags(batch))


def packed_softmax(scores: Tensor, batch: Batch) -> Tensor:
    """Softmax over the instances of each bag of a packed batch.

    Args:
        scores: Shape ``(N, M)``.
        batch: See :func:`weighted_sum`.

    Returns:
        Same shape, in float32 if the scores are of half precision, as PyTorch's softmax under autocast.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if len(scores) == batch.valid.numel():
        return batch.unpack(scores).softmax(dim=1).flatten(0, 1)
    powers = (scores - spread(maximum(scores, batch), batch)).exp()
    totals = powers.new_zeros(len(batch), scores.shape[1]).index_add_(0, _bags(batch), powers)
    return powers / spread(totals, batch)


def _bags(batch: Batch) -> Tensor:
    """Number of the bag that each instance of a packed batch belongs to, shape ``(N,)``, int64."""
    return batch.places.div(batch.valid.shape[1], rounding_mode="floor")
