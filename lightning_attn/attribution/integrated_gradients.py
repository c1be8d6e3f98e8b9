"""Integrated gradients, by captum."""

from __future__ import annotations

from typing import cast

import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.attribution.gradients import differentiable
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.parts import narrowed, rows_within
from lightning_attn.types import Batch


@register("integrated_gradients")
class IntegratedGradients(Attribution):
    """Gradient x embedding averaged on the straight path from zero embeddings, summed over the embedding.

    The scores of a text add up to ``p(x) - p(zero embeddings)``, padding and specials included, up to the steps.
    Source: Sundararajan, Taly and Yan, ICML 2017, https://arxiv.org/abs/1703.01365.

    Args:
        steps: Points on the path.
        max_tokens: Bound on positions in one pass, padding included.
    """

    def __init__(self, steps: int = 50, max_tokens: int = 16384) -> None:
        self.steps = steps
        self.max_tokens = max_tokens

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`; signed."""
        return path_gradients(network, batch, target, self.steps, self.max_tokens).flatten(2).sum(dim=-1)


def path_gradients(
    network: AttentionNetwork, batch: Batch, target: Tensor | None, steps: int, max_tokens: int
) -> Tensor:
    """Integrated gradients of every number of the embeddings, from zero embeddings, shape ``(B, L, E)``.

    Args:
        network: See :meth:`Attribution.attribute`.
        batch: See :meth:`Attribution.attribute`.
        target: See :meth:`Attribution.attribute`.
        steps: Points on the path.
        max_tokens: Bound on positions in one pass, padding included.
    """
    with differentiable(network, batch) as copy:
        with torch.no_grad():
            copy = network.read_query(copy)
            embeddings = network.embed(copy)
            chosen = network(copy).logits.argmax(dim=-1) if target is None else target.clone()
        found = torch.zeros_like(embeddings)
        for rows, part in narrowed(copy, max_tokens, steps, network.schema.spans):
            width = part.valid.shape[1]
            one = _integrated(network, part, embeddings[rows, :width], chosen[rows], steps, max_tokens)
            found[rows, :width] = one.to(found.dtype)  # captum's steps are of single precision
    return found


def _integrated(
    network: AttentionNetwork, batch: Batch, embeddings: Tensor, target: Tensor, steps: int, max_tokens: int
) -> Tensor:
    def probability(points: Tensor, rows: Tensor) -> Tensor:
        return network.schema.probabilities(network(batch.select(rows), embeddings=points).logits)

    found = CaptumIntegratedGradients(probability).attribute(
        embeddings,
        target=target,
        additional_forward_args=(torch.arange(len(batch), device=batch.device),),
        n_steps=steps,
        internal_batch_size=max(len(batch), rows_within(max_tokens, embeddings.shape[1])),
    )
    return cast(Tensor, found).detach()
