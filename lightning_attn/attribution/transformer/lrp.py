"""Relevance (LRP) of embeddings and weights, and times the gradient of the weights: `TransAtt`, `MaskLRP`.

Patents: see :mod:`lightning_attn.attribution.transformer.rules`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.base import register
from lightning_attn.attribution.transformer.base import TransformerAttribution, rows_of_product, trace
from lightning_attn.attribution.transformer.relevance import propagate, weight_relevance
from lightning_attn.attribution.transformer.rules import ChosenHeads, EveryHead, HeadRule, ReleasedChosenHeads
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.types import Batch


@register("partial_lrp")
class PartialLRP(TransformerAttribution):
    """Relevance of the last layer's weights, negative cut off: row of [CLS], mean over attention heads.

    Source: Voita et al., ACL 2019, https://arxiv.org/abs/1905.09418, as a baseline of Chefer, Gur and Wolf, CVPR 2021,
    has it. Patents: see the module.
    """

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """0 or more."""
        last = weight_relevance(network, batch, target, lowest=-1)[0].relu().mean(dim=1)
        return torch.einsum("bq,bqk->bk", network.answer_rows(batch, target).to(last.dtype), last)


@register("full_lrp")
class FullLRP(TransformerAttribution):
    """Relevance of what the embeddings give to the model, summed over its numbers; signed.

    Those of a text add up to 1, of a span to 2, [CLS] and [SEP] included. Source: Bach et al., PLoS ONE
    2015, by the rules of the code of Chefer, Gur and Wolf, CVPR 2021. Patents: see the module.
    """

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        return propagate(network, batch, target).embedding.sum(dim=-1)


@register("transatt")
class TransAtt(TransformerAttribution):
    """Row of [CLS] in the product over layers of ``row_normalise(E_l + I)``, ``E_l`` of gradient and relevance.

    ``E_l = mean over attention heads of relu(dy/dA_l * R_l)``, y the logit, ``R_l`` the relevance of the weights.
    Source: Chefer, Gur and Wolf, CVPR 2021, https://arxiv.org/abs/2012.09838, from the first layer on (their released
    default for BERT starts at the last). Called "GAE" in the code of Mask-LRP, which is the name of their later method
    without relevance. Patents: see the module.
    """

    rule: HeadRule = EveryHead()

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """In [0, 1], of a span in [0, 2]."""
        self.rule.check(network)
        traced = trace(network, batch, target)
        gradients = traced.gradients(traced.maps)
        maps = weight_relevance(network, batch, target, self.rule)
        pairs = zip(gradients, maps, strict=True)
        products = [(gradient * one).relu_().mean(dim=1) for gradient, one in pairs]
        return rows_of_product(products, network.answer_rows(batch, target).to(products[0].dtype))


class MaskLRP(TransAtt):
    """:class:`TransAtt` with the relevance of chosen attention heads only; see :class:`ChosenHeads`.

    Choosing all of them is :class:`TransAtt`. Source: Mask-LRP, "Better Explain Transformers by Illuminating Important
    Information", Findings of EACL 2024, https://arxiv.org/abs/2401.09972; where the selection acts is ours
    (``docs/methods.md``, inside self-attention). Patents: see the module.

    Args:
        heads: Of each layer, the lowest first, the numbers of its important attention heads, from 0.
        renormalise: See :class:`ChosenHeads`.
    """

    def __init__(self, heads: Sequence[Sequence[int]], renormalise: bool = False) -> None:
        self.rule = ChosenHeads(heads, renormalise)


class ReleasedMaskLRP(TransAtt):
    """Mask-LRP as its code does it; see :class:`ReleasedChosenHeads`. Patents: see the module.

    Args:
        heads: See :class:`MaskLRP`.
    """

    def __init__(self, heads: Sequence[Sequence[int]]) -> None:
        self.rule = ReleasedChosenHeads(heads)
