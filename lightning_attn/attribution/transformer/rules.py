"""How relevance passes backwards through single operations (LRP), as autograd functions, and through attention heads.

The backward pass of each of them takes relevance of its output for a gradient and gives relevance of its inputs. Rules:
the code of Chefer, Gur and Wolf, CVPR 2021, for BERT, in the words of ``docs/methods.md`` (relevance,
layer by layer), from which they were written anew. A `HeadRule` says which attention heads relevance may pass.

LRP is called patented technology by its authors; see the README of rachtibat/LRP-eXplains-Transformers. This is an
implementation of our own, which settles nothing but copyright. No LRP method runs unless it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.networks.transformer.model import TransformerModel

#: Below this share of the products' absolute sum, a sum of positive products is rounding noise.
_NOISE = 1e-5
_EPSILON = 1e-9


def ratio(relevance: Tensor, total: Tensor) -> Tensor:
    """``R / (Z + 1e-9)``, whatever the sign of Z; 0 where Z is 0."""
    return (relevance / (total + _EPSILON)).masked_fill_(total == 0, 0.0)


class Linear(Function):
    """``R_i = sum_j R_j z_ij / sum_i z_ij`` with ``z_ij = max(x_i w_ij, 0)``; the bias is left out.

    ``max(xw, 0) = (xw + |x||w|) / 2``, so that products of whole matrices are enough.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``W x + b``."""
        product = F.linear(x, weight)
        ctx.save_for_backward(x, weight, product)
        return product if bias is None else product + bias

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None, None]:
        """Relevance of ``x``."""
        x, weight, product = ctx.saved_tensors
        size, magnitude = x.abs(), weight.abs()
        absolute = F.linear(size, magnitude)
        total = product + absolute
        noise = total <= absolute.mul_(_NOISE)
        share = (relevance / total.add_(_EPSILON)).masked_fill_(noise, 0.0)
        return (share @ weight).mul_(x).addcmul_(size, share @ magnitude), None, None


class Identity(Function):
    """The relevance of the output is that of the input: normalisation, activations, softmax."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        """The output, which was computed of ``x`` already, without gradient."""
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        """Relevance of ``x``."""
        return relevance, None


class Add(Function):
    """``a R / (a + b)`` and the same for ``b``; then each is scaled to its absolute share of each example's total.

    The published code takes the sums over the whole batch, which is right for batches of one only.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """``a + b``."""
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance of ``a`` and of ``b``."""
        a, b = ctx.saved_tensors
        share = ratio(relevance, a + b)
        to_a, to_b = a * share, b * share
        total, from_a, from_b = _sums(relevance), _sums(to_a), _sums(to_b)
        absolute = from_a.abs() + from_b.abs()
        to_a *= ratio(total * ratio(from_a.abs(), absolute), from_a)
        to_b *= ratio(total * ratio(from_b.abs(), absolute), from_b)
        return to_a, to_b


class Product(Function):
    """``X Y`` of two activations: each alone would carry all of R, so each gets half."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        """The matrix product."""
        product = x @ y
        ctx.save_for_backward(x, y, product)
        return product

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance of ``x`` and of ``y``."""
        x, y, product = ctx.saved_tensors
        half = ratio(relevance / 2, product)
        return (half @ y.transpose(-2, -1)).mul_(x), (x.transpose(-2, -1) @ half).mul_(y)


def _sums(relevance: Tensor) -> Tensor:
    """Sum of each example, shape ``(B, 1, ...)``."""
    return relevance.sum(dim=tuple(range(1, relevance.dim())), keepdim=True)


class HeadRule:
    """Decides at the context ``A V`` of every layer. The base class lets everything pass."""

    def check(self, network: TransformerModel) -> None:
        """Nothing to check: fits every network."""

    def factor(self, relevance: Tensor, layer: int) -> Tensor:
        """What the relevance of each attention head is multiplied by, shape ``(B, M, 1, 1)``.

        Args:
            relevance: That arrives at the context, shape ``(B, M, L, D)``.
            layer: From 0.
        """
        return relevance.new_ones(relevance.shape[:2])[..., None, None]

    def kept(self, whole: Tensor, passed: Tensor) -> Tensor:
        """The map of relevance that is kept, shape ``(B, M, L, L)``.

        Args:
            whole: All relevance that arrived, put on the weights; not halved.
            passed: What goes on to the weights.
        """
        return passed


class EveryHead(HeadRule):
    """No selection."""


class ChosenHeads(HeadRule):
    """Relevance of attention heads that are not chosen is dropped; residual paths keep theirs.

    The layer's own map is without them too, and choosing all equals no selection: ``clean`` in ``docs/methods.md``.

    Args:
        heads: Of each layer, the lowest first, the numbers of its chosen attention heads, from 0.
        renormalise: Whether the chosen ones take over what is dropped, in proportion, so that none is lost; a layer
            without any loses it all the same.
    """

    def __init__(self, heads: Sequence[Sequence[int]], renormalise: bool = False) -> None:
        self.heads = [sorted(set(layer)) for layer in heads]
        self.renormalise = renormalise

    def check(self, network: TransformerModel) -> None:
        """See whether the selection fits.

        Raises:
            InputError: It is for another model.
        """
        if len(self.heads) != network.depth:
            raise InputError(
                f"The important attention heads are given for {len(self.heads)} layers, and the model has "
                f"{network.depth}: they belong to another model."
            )
        for number, layer in enumerate(self.heads):
            if layer and not 0 <= layer[0] <= layer[-1] < network.heads_per_layer:
                raise InputError(
                    f"Layer {number} has attention heads {layer} among the important ones, and the model has "
                    f"{network.heads_per_layer} a layer, from 0: they belong to another model."
                )

    @override
    def factor(self, relevance: Tensor, layer: int) -> Tensor:
        mask = torch.zeros(relevance.shape[1], device=relevance.device, dtype=relevance.dtype)
        mask[self.heads[layer]] = 1
        factor = mask.expand(relevance.shape[:2])
        if self.renormalise:
            each = relevance.sum(dim=(2, 3))
            left = (each * mask).sum(dim=1, keepdim=True)
            scale = torch.where(left == 0, 1.0, each.sum(dim=1, keepdim=True) / torch.where(left == 0, 1.0, left))
            factor = factor * scale
        return factor[..., None, None]


class ReleasedChosenHeads(ChosenHeads):
    """As the published code of Mask-LRP does it: ``released`` in ``docs/methods.md``.

    The map that is kept is the whole one, not halved: a selection acts on lower layers only, not at all in a model of
    one layer, and choosing all doubles every map.

    Args:
        heads: See :class:`ChosenHeads`.
    """

    def __init__(self, heads: Sequence[Sequence[int]]) -> None:
        super().__init__(heads)

    @override
    def kept(self, whole: Tensor, passed: Tensor) -> Tensor:
        return whole
