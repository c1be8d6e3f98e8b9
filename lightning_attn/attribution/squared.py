"""Attributions of every number of an embedding, pooled to one score a position by their sum of squares."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.attribution.integrated_gradients import path_gradients
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch


class SquaredAttribution(Attribution):
    """``sum_d A_id^2``, from an attribution ``A_id`` of each number of the embedding of position i.

    At least 0: whether the token speaks for or against the class is lost. Gradients follow the path through the
    attention weights too. Source: Zhang et al., NAACL 2022, https://arxiv.org/abs/2204.10893, who pool all their
    gradient methods so.
    """

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`; at least 0."""
        return self.elements(network, batch, target).flatten(2).square().sum(dim=-1)

    @abstractmethod
    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """``A``, shape ``(B, L, E)``, without gradient; arguments as in :meth:`Attribution.attribute`."""


@register("simple_gradient")
class SimpleGradient(SquaredAttribution):
    """``sum_d (dp/de_id)^2``, p the probability of the explained class: "SimpleGrad" of Zhang et al. 2022."""

    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`SquaredAttribution.elements`."""
        return embedding_gradient(network, batch, target, attention_fixed=False).gradient


@register("input_gradient")
class InputGradient(SquaredAttribution):
    """``sum_d (dp/de_id e_id)^2``: "InputGrad" of Zhang et al. 2022; the signed sum is ``gradient_x_input``."""

    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`SquaredAttribution.elements`."""
        found = embedding_gradient(network, batch, target, attention_fixed=False)
        return found.gradient * found.embeddings


@register("squared_integrated_gradients")
class SquaredIntegratedGradients(SquaredAttribution):
    """Integrated gradients from zero embeddings, by captum, pooled by their squares.

    The signed sum is ``integrated_gradients``. Source: Sundararajan, Taly and Yan, ICML 2017,
    https://arxiv.org/abs/1703.01365.

    Args:
        steps: Points on the path; 25 in Zhang et al. 2022.
        max_tokens: Bound on positions in one pass, padding included.
    """

    def __init__(self, steps: int = 25, max_tokens: int = 16384) -> None:
        self.steps = steps
        self.max_tokens = max_tokens

    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`SquaredAttribution.elements`."""
        return path_gradients(network, batch, target, self.steps, self.max_tokens).detach()
