"""Relevance as gradient x input with changed local derivatives: `AttnLRP`, and `CPLRP` with constant attention.

Patents: see :mod:`lightning_attn.attribution.transformer.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from lightning_attn.attribution.base import register
from lightning_attn.attribution.transformer.base import TransformerAttribution
from lightning_attn.attribution.transformer.relevance import ACTIVATIONS, Network, with_activations
from lightning_attn.attribution.transformer.rules import ChosenHeads, EveryHead, HeadRule
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.self_attention import Attend, Projections
from lightning_attn.types import Batch


@register("attn_lrp")
class AttnLRP(TransformerAttribution):
    """``sum_d e_id g_id`` at the word embeddings, g from one backward pass with other local derivatives; signed.

    The denominator of normalisation is a constant, an activation has the derivative ``f(x) / x``, each factor of a
    product of activations (``Q K^T``, ``A V``) gets half; linear layers and softmax have their own derivative. The pass
    starts with 1 at the logit of the explained class. Through one attention layer values get 1/2, queries and keys 1/4.

    Source: Achtibat et al., ICML 2024, https://arxiv.org/abs/2402.05602; Arras et al. 2025,
    https://arxiv.org/abs/2502.15886. Patents: see the module.

    Args:
        heads: Of each layer, the lowest first, the attention heads that relevance may pass; None means all.
    """

    def __init__(self, heads: Sequence[Sequence[int]] | None = None) -> None:
        self.rule: HeadRule = EveryHead() if heads is None else ChosenHeads(heads)

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        self.rule.check(network)
        embeddings = network.embed(batch).detach().requires_grad_()
        with derivative_rules(network) as ruled:
            logits = ruled.run(embeddings, batch, self.attend())
        (gradient,) = torch.autograd.grad(logits.gather(-1, target[:, None]).sum(), embeddings)
        return (gradient * embeddings.detach()).sum(dim=-1)

    def attend(self) -> Attend:
        """What self-attention does."""
        return _HalvedAttend(self.rule)


@register("cp_lrp")
class CPLRP(AttnLRP):
    """:class:`AttnLRP` with attention weights as constants, so that relevance passes through the values alone.

    Without biases and embeddings of positions and segments those of a text add up to the logit. Source: Ali et
    al., ICML 2022, https://arxiv.org/abs/2202.07304. Patents: see the module.

    Args:
        heads: See :class:`AttnLRP`.
    """

    def attend(self) -> Attend:
        """What self-attention does."""
        return _ConstantAttend(self.rule)


@contextmanager
def derivative_rules(network: Network) -> Iterator[Network]:
    """Within, normalisation and activations have the derivatives of :class:`AttnLRP`.

    As with :func:`~lightning_attn.attribution.transformer.relevance.relevance_rules`, nothing is patched.

    Yields:
        The network to run: it shares its parts with the one that is projections.
    """
    ruled = with_activations(network, _Proportional)
    with _Derivatives():
        yield ruled


class _Derivatives(TorchFunctionMode):
    """Exchanges the functions whose derivative is another one here."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is F.layer_norm and args[0].requires_grad:
            return _normalised(*args, **named)
        if func in ACTIVATIONS and args[0].requires_grad:
            with torch.no_grad():
                output = func(*args, **named)
            return _Proportional.apply(args[0], output)  # type: ignore[no-untyped-call]
        return func(*args, **named)


def _normalised(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    return _Normalised.apply(x, shape, weight, bias, eps)  # type: ignore[no-untyped-call, no-any-return]


class _Normalised(Function):
    """Layer normalisation over the last dimensions whose denominator is a constant."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        output, _, scale = torch.native_layer_norm(x, list(shape), weight, bias, eps)
        ctx.save_for_backward(weight, scale)
        ctx.places = tuple(range(-len(shape), 0))
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        weight, scale = ctx.saved_tensors
        scaled = gradient * scale if weight is None else gradient * weight * scale
        return scaled - scaled.mean(dim=ctx.places, keepdim=True), None, None, None, None


class _Proportional(Function):
    """The output of an activation, with the derivative ``f(x) / x``; 0 where x is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x, output)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, output = ctx.saved_tensors
        return (output / x).masked_fill_(x == 0, 0.0).mul_(gradient), None


class _HalvedAttend(Attend):
    """Attention in which each factor of a product gets half of the gradient."""

    def __init__(self, rule: HeadRule) -> None:
        super().__init__()
        self.rule = rule

    def attend(self, layer: int, projections: Projections) -> Tensor:
        # Half of what arrives at the context goes to weights and values each; a gradient is linear.
        context = replace(projections, query=_half(projections.query), key=_half(projections.key)).fused()
        return self.restricted(_half(context), layer)

    def restricted(self, context: Tensor, layer: int) -> Tensor:
        """The context, whose gradient goes back to the chosen attention heads only."""
        return _Restricted.apply(context, self.rule, layer)  # type: ignore[no-untyped-call, no-any-return]


class _ConstantAttend(_HalvedAttend):
    """Attention whose weights are constants."""

    def attend(self, layer: int, projections: Projections) -> Tensor:
        weights = replace(projections, query=projections.query.detach(), key=projections.key.detach()).weights()
        return self.restricted(weights @ projections.value, layer)


def _half(x: Tensor) -> Tensor:
    """The same numbers, half of the gradient."""
    return x.detach().lerp(x, 0.5)


class _Restricted(Function):
    """Multiplies the gradient at the context by what the rule says of the relevance there."""

    @staticmethod
    def forward(ctx: Any, context: Tensor, rule: HeadRule, layer: int) -> Tensor:
        ctx.save_for_backward(context)
        ctx.rule, ctx.layer = rule, layer
        return context.view_as(context)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (context,) = ctx.saved_tensors
        return gradient * ctx.rule.factor(context * gradient, ctx.layer), None, None
