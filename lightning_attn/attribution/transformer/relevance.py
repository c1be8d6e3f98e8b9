"""Layer-wise relevance through a whole transformer (LRP): one forward and one backward pass of the untouched model.

Patents: see :mod:`lightning_attn.attribution.transformer.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from lightning_attn.attribution.transformer.rules import Add, EveryHead, HeadRule, Identity, Linear, Product, ratio
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.parts import exchanged
from lightning_attn.networks.transformer.self_attention import Attend, Projections
from lightning_attn.types import Batch

Network = TypeVar("Network", bound=TransformerModel)

#: Activations that a model may call as one function.
ACTIVATIONS: frozenset[Callable[..., Any]] = frozenset(
    [
        F.layer_norm,
        F.gelu,
        F.relu,
        F.silu,
        F.tanh,
        F.elu,
        F.leaky_relu,
        torch.tanh,
        torch.relu,
        Tensor.tanh,
        Tensor.relu,
    ]
)


@dataclass
class Relevance:
    """Where the relevance of one class went.

    Attributes:
        maps: Relevance of each layer's weights, the lowest first, shape ``(B, M, L, L)``.
        embedding: Relevance of what the embeddings give to the first layer, shape ``(B, L, E)``.
    """

    maps: list[Tensor]
    embedding: Tensor


def propagate(network: TransformerModel, batch: Batch, target: Tensor, rule: HeadRule | None = None) -> Relevance:
    """Start with 1 at the explained class of each example and go back to the embeddings.

    Computed in double precision: where a residual sum is near 0, its two sides get much relevance of opposite signs,
    and in single precision what is left of them at the embeddings is rounding noise for some texts.

    Args:
        network: In evaluation mode.
        batch: B texts.
        target: Class, shape ``(B,)``.
        rule: What happens to the relevance of each attention head; None means ``EveryHead()``.
    """
    logits, attend, embedded = _run(network, batch, rule, torch.float64)
    (embedding,) = torch.autograd.grad(logits, embedded, _start(logits, target))
    own = next(network.parameters()).dtype
    return Relevance([attend.maps[layer].to(own) for layer in range(len(attend.maps))], embedding.to(own))


def weight_relevance(
    network: TransformerModel, batch: Batch, target: Tensor, rule: HeadRule | None = None, lowest: int = 0
) -> list[Tensor]:
    """The maps of :func:`propagate` from layer ``lowest`` on; what lies below its weights is not visited.

    Args:
        network: In evaluation mode.
        batch: B texts.
        target: Class, shape ``(B,)``.
        rule: See :func:`propagate`.
        lowest: From 0; -1 is the last layer.

    Returns:
        The lowest first, shape ``(B, M, L, L)`` each.
    """
    logits, attend, _ = _run(network, batch, rule)
    torch.autograd.grad(logits, attend.weights[lowest], _start(logits, target))
    return [attend.maps[layer] for layer in range(len(attend.weights))[lowest:]]


def _run(
    network: TransformerModel, batch: Batch, rule: HeadRule | None, dtype: torch.dtype | None = None
) -> tuple[Tensor, _RelevanceAttend, Tensor]:
    attend = _RelevanceAttend(rule or EveryHead())
    with relevance_rules(network, dtype) as (ruled, embedded):
        logits = ruled.run(network.embed(batch).detach(), batch, attend)
    return logits, attend, embedded[0]


def _start(logits: Tensor, target: Tensor) -> Tensor:
    return F.one_hot(target, logits.shape[-1]).to(logits.dtype)


@contextmanager
def relevance_rules(network: Network, dtype: torch.dtype | None = None) -> Iterator[tuple[Network, list[Tensor]]]:
    """Within, operations pass relevance backwards in place of gradients.

    Nothing is patched: functions are caught on their way to PyTorch, in this thread, for this block, and what is no
    function is exchanged in a network that shares all other parts.

    Args:
        network: In evaluation mode.
        dtype: What layers compute in; None means what the embeddings have. Parameters stay as they are.

    Yields:
        The network to run, and a list that gets what its embeddings give to the first layer, a leaf of the graph.
    """
    embedded: list[Tensor] = []
    embeddings = network.model.base_model.embeddings
    ruled = exchanged(network, lambda part: _Leaf(part, dtype, embedded) if part is embeddings else None)
    ruled = with_activations(ruled, Identity)
    with _Rules():
        yield ruled, embedded


def with_activations(network: Network, function: type[Function]) -> Network:
    """The network with activations that transformers may put together of several operations as one function.

    Args:
        network: Stays as it is.
        function: From input and output of an activation to the output, with a backward pass of its own.
    """

    def exchange(part: nn.Module) -> nn.Module | None:
        return _Activation(part, function) if type(part).__module__ == "transformers.activations" else None

    return exchanged(network, exchange)


class _Leaf(nn.Module):
    """In the place of the embeddings: what they give, as a leaf of the graph that is kept in ``embedded``."""

    def __init__(self, embeddings: nn.Module, dtype: torch.dtype | None, embedded: list[Tensor]) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.dtype = dtype
        self.embedded = embedded

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.embeddings(*args, **kwargs)
        self.embedded.append(output.detach().to(self.dtype or output.dtype).requires_grad_())
        return self.embedded[-1]


class _Activation(nn.Module):
    """In the place of an activation."""

    def __init__(self, activation: nn.Module, function: type[Function]) -> None:
        super().__init__()
        self.activation = activation
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function.apply(x, self.activation(x).detach())  # type: ignore[no-untyped-call]


class _Rules(TorchFunctionMode):
    """Exchanges the functions that have a rule of their own; all others keep their derivative, which moves numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is F.linear and args[0].requires_grad:
            bias = args[2] if len(args) > 2 else named.get("bias")
            return Linear.apply(args[0], _like(args[0], args[1]), _like(args[0], bias))  # type: ignore[no-untyped-call]
        if (func is F.layer_norm or func in ACTIVATIONS) and args[0].requires_grad:
            with torch.no_grad():
                options = {name: _like(args[0], one) for name, one in named.items()}
                output = func(*(_like(args[0], one) for one in args), **options)
            return Identity.apply(args[0], output)  # type: ignore[no-untyped-call]
        if func in (torch.add, Tensor.add) and _two_activations(args) and not named:
            return Add.apply(*args)  # type: ignore[no-untyped-call]
        return func(*args, **named)


def _like(activation: Tensor, argument: Any) -> Any:
    """A parameter in the precision of what it is applied to; everything else as it is."""
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return argument.to(activation.dtype)
    return argument


def _two_activations(args: Sequence[Any]) -> bool:
    return len(args) == 2 and all(isinstance(one, Tensor) and one.requires_grad for one in args)


class _RelevanceAttend(Attend):
    """Attention by its rules; the weights of each layer, and the maps of their relevance, by layer."""

    def __init__(self, rule: HeadRule) -> None:
        super().__init__()
        self.rule = rule
        self.weights: list[Tensor] = []
        self.maps: dict[int, Tensor] = {}

    def attend(self, layer: int, projections: Projections) -> Tensor:
        scores: Tensor = Product.apply(projections.query, projections.key.transpose(-2, -1))  # type: ignore[no-untyped-call]
        with torch.no_grad():  # no relevance goes to the padding term: it is no operand here
            softmax = projections.masked(scores * projections.scaling).softmax(dim=-1)
        weights = Identity.apply(scores, softmax)  # type: ignore[no-untyped-call]
        self.weights.append(weights)
        context: Tensor = _Context.apply(weights, projections.value, self.rule, self.maps, layer)  # type: ignore[no-untyped-call]
        return context


class _Context(Function):
    """:class:`Product` of weights and values, where attention heads are chosen and maps are kept.

    What it remembers must not lead to tensors of the graph that it is part of: nothing would ever be freed.
    """

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, value: Tensor, rule: HeadRule, maps: dict[int, Tensor], layer: int
    ) -> Tensor:
        context = weights @ value
        ctx.save_for_backward(weights, value, context)
        ctx.rule, ctx.maps, ctx.layer = rule, maps, layer
        return context

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        weights, value, context = ctx.saved_tensors
        share = ratio(relevance, context)
        rule: HeadRule = ctx.rule
        half = rule.factor(relevance, ctx.layer) / 2
        whole = (share @ value.transpose(-2, -1)).mul_(weights)
        to_weights = whole * half
        ctx.maps[ctx.layer] = rule.kept(whole, to_weights)
        return to_weights, (weights.transpose(-2, -1) @ (share * half)).mul_(value), None, None, None
