"""Gradients of a class probability with respect to the embeddings, safe inside any Lightning hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
        chosen = output.logits.detach().argmax(dim=-1) if target is None else target.clone()
        (gradient,) = torch.autograd.grad(explained_probability(network, logits, chosen).sum(), embeddings)
    return EmbeddingGradient(gradient, embeddings.detach(), chosen, output.detach())
