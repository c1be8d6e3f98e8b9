"""Relevance (LRP) of the last layer's weights, and of the embeddings.

Patents: see :mod:`lightning_attn.attribution.transformer.relevance_rules`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.attribution.base import register
from lightning_attn.attribution.transformer.base import TransformerAttribution
from lightning_attn.attribution.transformer.relevance import propagate, weight_relevance
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.types import Batch


@register("partial_lrp")
class PartialLRP(TransformerAttribution):
    """Relevance of the last layer's weights, negative cut off: row of [CLS], mean over attention heads.

    Source: Voita et al., ACL 2019, https://arxiv.org/abs/1905.09418, as a baseline of Chefer, Gur and Wolf, CVPR 2021,
    has it. Patents: see the module.
    """

    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """See :meth:`TransformerAttribution.look`; 0 or more."""
        last = weight_relevance(network, batch, target, lowest=-1)[0].relu().mean(dim=1)
        return torch.einsum("bq,bqk->bk", network.answer_rows(batch, target).to(last.dtype), last)


@register("full_lrp")
class FullLRP(TransformerAttribution):
    """Relevance of what the embeddings give to the model, summed over its numbers; signed.

    Those of a text add up to 1, of a span to 2, [CLS] and [SEP] included. Source: Bach et al., PLoS ONE
    2015, by the rules of the code of Chefer, Gur and Wolf, CVPR 2021. Patents: see the module.
    """

    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """See :meth:`TransformerAttribution.look`."""
        return propagate(network, batch, target).embedding.sum(dim=-1)
