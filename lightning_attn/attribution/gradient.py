"""Attributions from one backward pass to the embeddings."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.attribution.gradients import EmbeddingGradient, embedding_gradient
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch


class GradientAttribution(Attribution):
    """Some function of ``dp/de_i``, p the probability of the explained class.

    Args:
        attention_fixed: Treat the attention weights as constants. With values that see their own token alone the
            weight is then a factor of the score, and agreement with attention partly built in.
    """

    def __init__(self, attention_fixed: bool = True) -> None:
        self.attention_fixed = attention_fixed

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`."""
        return self.reduce(embedding_gradient(network, batch, target, self.attention_fixed))

    @abstractmethod
    def reduce(self, found: EmbeddingGradient) -> Tensor:
        """One number a position, shape ``(B, L)``."""


@register("gradient_x_input")
class GradientXInput(GradientAttribution):
    """``sum_d dp/de_id e_id``: positive where the token speaks for the class, to first order."""

    def reduce(self, found: EmbeddingGradient) -> Tensor:
        """See :meth:`GradientAttribution.reduce`."""
        return (found.gradient * found.embeddings).flatten(2).sum(dim=-1)


@register("gradient")
class AbsoluteGradientXInput(GradientXInput):
    """``| sum_d dp/de_id e_id |``.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, algorithm 1. They sum sigmoid outputs over
    the classes; here p is the probability of the explained class.
    """

    def reduce(self, found: EmbeddingGradient) -> Tensor:
        """See :meth:`GradientAttribution.reduce`."""
        return super().reduce(found).abs()


@register("gradient_norm")
class GradientNorm(GradientAttribution):
    """``|| dp/de_i ||``: how sensitive the output is to the position, whatever stands there."""

    def reduce(self, found: EmbeddingGradient) -> Tensor:
        """See :meth:`GradientAttribution.reduce`."""
        return torch.linalg.vector_norm(found.gradient.flatten(2), dim=-1)  # type: ignore[no-any-return]
