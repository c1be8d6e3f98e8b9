"""Gradients of a class probability by the embeddings, in any Lightning hook, and attributions made of one of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.attribution.base import OnePassAttribution, register
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import AttentionOutput, Batch


@dataclass
class EmbeddingGradient:
    """One backward pass.

    Attributes:
        gradient: ``dp/de``, shape ``(B, L, E)``.
        embeddings: ``e``, shape ``(B, L, E)``.
        target: The explained class, shape ``(B,)``, int64.
        output: What the forward pass computed, detached.
    """

    gradient: Tensor
    embeddings: Tensor
    target: Tensor
    output: AttentionOutput

    @property
    def product(self) -> Tensor:
        """``sum_d dp/de_d e_d``: gradient x embedding of each position, shape ``(B, L)``."""
        return (self.gradient * self.embeddings).flatten(2).sum(dim=-1)


@contextmanager
def differentiable(network: AttentionNetwork, batch: Batch) -> Iterator[Batch]:
    """Evaluation mode with gradients, also inside ``no_grad`` and ``inference_mode``.

    ``Trainer.validate`` runs hooks in inference mode, and tensors made there cannot be saved for backward: hence the
    copy of the batch.

    Yields:
        The copy, to be used in place of ``batch``.
    """
    with torch.inference_mode(False), torch.enable_grad(), _native_recurrence(network), evaluating(network):
        yield batch.apply(torch.clone)


@contextmanager
def _native_recurrence(network: AttentionNetwork) -> Iterator[None]:
    """Without cuDNN for a recurrent network: it refuses backward in evaluation mode, the native kernels do not.

    Only this one switch is touched: ``torch.backends.cudnn.flags`` would reset the user's others.
    """
    before = torch.backends.cudnn.enabled
    if any(isinstance(module, nn.RNNBase) for module in network.modules()):
        torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def explained_probability(network: AttentionNetwork, logits: Tensor, target: Tensor) -> Tensor:
    """Probability of the class ``target`` ``(B,)``, shape ``(B,)``, from logits ``(B, C)``."""
    return network.schema.probabilities(logits).gather(-1, target[:, None]).squeeze(-1)


def embedding_gradient(
    network: AttentionNetwork, batch: Batch, target: Tensor | None = None, attention_fixed: bool = True
) -> EmbeddingGradient:
    """Gradient of each example's explained probability, in one forward and one backward pass for the batch.

    Args:
        network: Its parameters keep ``grad`` as it was, its modules their modes.
        batch: B texts or bags.
        target: Class to explain, shape ``(B,)``; None means the predicted class.
        attention_fixed: Treat the weights as constants, so that the gradient flows through the values alone (Jain and
            Wallace, NAACL 2019, detach the attention). False also follows the path through the scorer.
    """
    with differentiable(network, batch) as copy:
        with torch.no_grad():
            copy = network.read_query(copy)
        embeddings = network.embed(copy).detach().requires_grad_()
        output = network(copy, embeddings=embeddings)
        logits = network.classify(output.values, output.attention.detach(), copy) if attention_fixed else output.logits
        explained = output.logits.detach().argmax(dim=-1) if target is None else target.clone()
        (gradient,) = torch.autograd.grad(explained_probability(network, logits, explained).sum(), embeddings)
    return EmbeddingGradient(gradient, embeddings.detach(), explained, output.detach())


class GradientAttribution(OnePassAttribution):
    """Some function of ``dp/de_i``, p the probability of the explained class.

    Args:
        attention_fixed: Treat the attention weights as constants. With values that see their own token alone the
            weight is then a factor of the attribution, and agreement with attention partly built in.
    """

    def __init__(self, attention_fixed: bool = True) -> None:
        self.attention_fixed = attention_fixed

    @override
    def score_with_output(
        self, network: AttentionNetwork, batch: Batch, target: Tensor | None
    ) -> tuple[Tensor, AttentionOutput]:
        gradient = embedding_gradient(network, batch, target, self.attention_fixed)
        return self.reduce(gradient), gradient.output

    @abstractmethod
    def reduce(self, gradient: EmbeddingGradient) -> Tensor:
        """One number per position, shape ``(B, L)``."""


@register("gradient_x_input")
class GradientXInput(GradientAttribution):
    """``sum_d dp/de_id e_id``: positive where the token speaks for the class, to first order."""

    @override
    def reduce(self, gradient: EmbeddingGradient) -> Tensor:
        return gradient.product


@register("gradient")
class AbsoluteGradientXInput(GradientXInput):
    """``| sum_d dp/de_id e_id |``.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, algorithm 1. They sum sigmoid outputs over
    the classes; here p is the probability of the explained class.
    """

    @override
    def reduce(self, gradient: EmbeddingGradient) -> Tensor:
        return super().reduce(gradient).abs()


@register("gradient_norm")
class GradientNorm(GradientAttribution):
    """``|| dp/de_i ||``: how sensitive the output is to the position, whatever stands there."""

    @override
    def reduce(self, gradient: EmbeddingGradient) -> Tensor:
        return torch.linalg.vector_norm(gradient.gradient.flatten(2), dim=-1)  # type: ignore[no-any-return]


class _WholeGradient(GradientAttribution):
    """Follows the path through the attention weights too, and has no choice of it."""

    def __init__(self) -> None:
        super().__init__(attention_fixed=False)


@register("simple_gradient")
class SimpleGradient(_WholeGradient):
    """``sum_d (dp/de_id)^2``, p the probability of the explained class: "SimpleGrad" of Zhang et al. 2022."""

    @override
    def reduce(self, gradient: EmbeddingGradient) -> Tensor:
        return gradient.gradient.flatten(2).square().sum(dim=-1)


@register("input_gradient")
class InputGradient(_WholeGradient):
    """``sum_d (dp/de_id e_id)^2``: "InputGrad" of Zhang et al. 2022; the signed sum is ``gradient_x_input``."""

    @override
    def reduce(self, gradient: EmbeddingGradient) -> Tensor:
        return (gradient.gradient * gradient.embeddings).flatten(2).square().sum(dim=-1)
