"""Attention weights of a transformer as scores: of the last layer, and multiplied through all layers."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.attribution.base import register
from lightning_attn.attribution.transformer.base import TransformerAttribution, rows_of_product, trace
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.types import Batch


@register("raw_attention")
class RawAttention(TransformerAttribution):
    """Row of [CLS] in the last layer, mean over attention heads; the same for every class.

    For questions the mean over all rows.
    """

    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """See :meth:`TransformerAttribution.look`; in [0, 1]."""
        with torch.no_grad():
            last = trace(network, batch, target).maps[-1].mean(dim=1)
            return torch.einsum("bq,bqk->bk", network.reading_rows(batch).to(last.dtype), last)


@register("rollout")
class Rollout(TransformerAttribution):
    """Row of [CLS] in the product over layers of ``row_normalise(mean attention + I)``; the same for every class.

    For questions the mean over all rows. Source: Abnar and Zuidema, ACL 2020, https://arxiv.org/abs/2005.00928.
    """

    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """See :meth:`TransformerAttribution.look`; in [0, 1]."""
        with torch.no_grad():
            maps = [one.mean(dim=1) for one in trace(network, batch, target).maps]
            return rows_of_product(maps, network.reading_rows(batch).to(maps[0].dtype))
