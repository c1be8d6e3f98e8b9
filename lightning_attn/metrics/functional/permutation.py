"""Does the output depend on which token got which weight?"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.evaluation import evaluating
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.randomness import mix, uniform
from lightning_attn.types import AttentionOutput, Batch


def total_variation(p: Tensor, q: Tensor, multi_label: bool = False) -> Tensor:
    """Total variation distance of class probabilities.

    Args:
        p: Shape ``(..., C)``.
        q: Shape ``(..., C)``.
        multi_label: Each probability is a distribution ``(p, 1 - p)`` of its own; their distances are averaged.

    Returns:
        Shape ``(...)``, in [0, 1].
    """
    distance = (p - q).abs()
    return distance.mean(dim=-1) if multi_label else distance.sum(dim=-1) / 2


def permute(attention: Tensor, batch: Batch, seed: int = 0) -> Tensor:
    """Attention with its weights on ``batch.inner`` in another order, drawn by ``batch.index``; shape ``(B, L)``."""
    inner = batch.inner
    places = (~inner).to(torch.int8).argsort(dim=-1, stable=True)
    # Both list the inner positions first, then all others in the same order: those are mapped to themselves.
    drawn = uniform(batch.index, inner.shape[1], seed).masked_fill(~inner, 2.0).argsort(dim=-1, stable=True)
    return torch.empty_like(attention).scatter(-1, places, attention.gather(-1, drawn))


@torch.no_grad()
def permutation_tvd(
    network: AttentionNetwork, output: AttentionOutput, batch: Batch, permutations: int = 100, seed: int = 0
) -> Tensor:
    """Median change of the output when the attention is permuted over the inner positions; the values stay.

    Args:
        network: Only its ``classify`` runs.
        output: What the network computed for ``batch``.
        batch: B examples.
        permutations: Permutations of each example.
        seed: They depend on it and on ``batch.index``, not on the batch an example stands in.

    Returns:
        Shape ``(B,)``, in [0, 1]; NaN where fewer than two positions can be permuted. Near 0, it does not matter which
        token got which weight.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.1.
    """
    schema = network.schema
    full = schema.probabilities(output.logits)
    seeds = mix(torch.arange(permutations) + seed * permutations).tolist()
    with evaluating(network):
        batch = network.read_query(batch)
        changes = [
            total_variation(
                full,
                schema.probabilities(network.classify(output.values, permute(output.attention, batch, one), batch)),
                schema.multi_label,
            )
            for one in seeds
        ]
    stacked = torch.stack(changes).sort(dim=0).values
    median = (stacked[(permutations - 1) // 2] + stacked[permutations // 2]) / 2
    return median.masked_fill(batch.inner.sum(dim=-1) < 2, torch.nan)
