"""Does the output depend on which token got which weight? Other attention: permuted, or searched for."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.adversarial import AdversarialSolver, EdgeSolver
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.divergence import total_variation
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.parts import rows_within
from lightning_attn.ops.randomness import mix, uniform
from lightning_attn.types import AttentionOutput, Batch


def permute(attention: Tensor, batch: Batch, numbers: Tensor) -> Tensor:
    """Attention with its weights on ``batch.inner`` in other orders.

    Args:
        attention: Shape ``(B, L)``.
        batch: B examples; their ``index`` decides the orders, whatever batch they stand in.
        numbers: V int64, shape ``(V,)``: each gives another order.

    Returns:
        Shape ``(B, V, L)``.
    """
    inner, count = batch.inner, len(numbers)
    places = (~inner).to(torch.int8).argsort(dim=-1, stable=True)[:, None].expand(-1, count, -1)
    # Twice, so that example 1 with number 0 is not example 0 with number 1.
    streams = mix(batch.index)[:, None] + mix(mix(numbers.to(batch.device)))
    draws = uniform(streams.flatten(), inner.shape[1]).view(*streams.shape, inner.shape[1])
    # Both list the inner positions first, then all others in the same order: those are mapped to themselves.
    drawn = draws.masked_fill(~inner[:, None], 2.0).argsort(dim=-1, stable=True)
    many = attention[:, None].expand(-1, count, -1)
    return torch.empty_like(drawn, dtype=attention.dtype).scatter_(-1, places, many.gather(-1, drawn))


@torch.no_grad()
def permutation_tvd(
    network: AttentionNetwork,
    output: AttentionOutput,
    batch: Batch,
    permutations: int = 100,
    seed: int = 0,
    max_tokens: int = 16384,
) -> Tensor:
    """Median change of the output when the attention is permuted over the inner positions; the values stay.

    Args:
        network: Only its ``classify_many`` runs.
        output: What the network computed for ``batch``.
        batch: B examples.
        permutations: Permutations of each example, at least 1.
        seed: They depend on it and on ``batch.index``, not on the batch an example stands in.
        max_tokens: Positions, padding included, of the permutations that are held at a time; one of each example may
            exceed it.

    Returns:
        Shape ``(B,)``, in [0, 1]; NaN where fewer than two positions can be permuted. Near 0, it does not matter which
        token got which weight.

    Raises:
        InputError: ``permutations`` or ``max_tokens`` is below 1.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.1.
    """
    if permutations < 1:
        raise InputError(f"The permutation experiment needs permutations of at least 1, not {permutations}.")
    schema = network.schema
    full = schema.probabilities(output.logits.float())[:, None]
    numbers = torch.arange(permutations) + seed * permutations
    changes = []
    with evaluating(network):
        batch = network.read_query(batch)
        for part in torch.split(numbers, rows_within(max_tokens, batch.valid.numel())):
            logits = network.classify_many(output.values, permute(output.attention, batch, part), batch)
            changes.append(total_variation(schema.probabilities(logits.float()), full, schema.multi_label))
    ordered = torch.cat(changes, dim=1).sort(dim=1).values
    median = (ordered[:, (permutations - 1) // 2] + ordered[:, permutations // 2]) / 2
    return median.masked_fill(batch.inner.sum(dim=-1) < 2, torch.nan)


def adversarial_jsd(
    network: AttentionNetwork,
    output: AttentionOutput,
    batch: Batch,
    solver: AdversarialSolver | None = None,
    max_tokens: int = 16384,
) -> Tensor:
    """Largest divergence from the attention that is found among weights that keep the output.

    Args:
        network: Only its ``classify`` and ``classify_many`` run, with the parameters as they are.
        output: What the network computed for ``batch``.
        batch: B examples.
        solver: How to search; None means ``EdgeSolver()``, which finds more than the published search, in less time.
            ``PublishedSolver()`` is that search.
        max_tokens: See :meth:`AdversarialSolver.solve`.

    Returns:
        Shape ``(B,)``, in [0, ln 2]: Jensen-Shannon divergence in nats, 0 if no other weights move the output by at
        most 0.05; NaN where fewer than two positions can be attended. High: other attention gives the same output.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.2; the search is ours.
    """
    return (solver or EdgeSolver()).solve(network, output, batch, max_tokens).jsd
