"""Attention weights of a transformer, multiplied through its layers, and with gradients: rollout, Grad-CAM, AttCAT."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.base import register
from lightning_attn.attribution.transformer.base import TransformerAttribution, rows_of_product, trace
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.types import Batch


@register("raw_attention")
class RawAttention(TransformerAttribution):
    """Row of [CLS] in the last layer, mean over attention heads; the same for every class.

    For questions the mean over all rows.
    """

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """In [0, 1]."""
        with torch.no_grad():
            last = trace(network, batch, target).maps[-1].mean(dim=1)
            return torch.einsum("bq,bqk->bk", network.reading_rows(batch).to(last.dtype), last)


@register("rollout")
class Rollout(TransformerAttribution):
    """Row of [CLS] in the product over layers of ``row_normalise(mean attention + I)``; the same for every class.

    For questions the mean over all rows. Source: Abnar and Zuidema, ACL 2020, https://arxiv.org/abs/2005.00928.
    """

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """In [0, 1]."""
        with torch.no_grad():
            maps = [one.mean(dim=1) for one in trace(network, batch, target).maps]
            return rows_of_product(maps, network.reading_rows(batch).to(maps[0].dtype))


@register("attention_gradient")
class AttentionGradient(TransformerAttribution):
    """``relu( mean over attention heads and queries of dy/dA )`` of the last layer, y the logit.

    Source: the baseline "Grads" of the code of AttCAT and Mask-LRP (LinxinS97/Mask-LRP). The mean is over the
    positions of the text, padding left out.
    """

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """0 or more."""
        traced = trace(network, batch, target)
        (gradient,) = traced.gradients(traced.maps[-1:])
        return (gradient.mean(dim=1).sum(dim=1) / _lengths(batch)).relu()


@register("attention_gradcam")
class AttentionGradCAM(TransformerAttribution):
    """Row of [CLS] of the last layer's weights, each attention head times its mean gradient; scaled to [0, 1].

    Grad-CAM with attention heads as channels: negative means are cut off, and the smallest and the largest number of
    the whole map become 0 and 1. Source: the baseline "GradCAM" of Chefer, Gur and Wolf, CVPR 2021,
    https://arxiv.org/abs/2012.09838; padding left out.
    """

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        traced = trace(network, batch, target)
        (gradient,) = traced.gradients(traced.maps[-1:])
        within = batch.valid[:, :, None] & batch.valid[:, None]
        # A weight on padding is 0, but the logit has a derivative by it all the same.
        channel = (gradient * within[:, None]).sum(dim=(2, 3), keepdim=True) / _lengths(batch)[..., None, None] ** 2
        cam = (traced.maps[-1].detach() * channel).mean(dim=1).relu()
        low = cam.masked_fill(~within, torch.inf).amin(dim=(1, 2))[:, None]
        high = cam.masked_fill(~within, -torch.inf).amax(dim=(1, 2))[:, None]
        width = high - low
        scaled = torch.where(width[..., None] > 0, (cam - low[..., None]) / width[..., None], 0.0)
        return torch.einsum("bq,bqk->bk", network.answer_rows(batch, target).to(scaled.dtype), scaled)


@register("attcat")
class AttCAT(TransformerAttribution):
    """``sum_l <h_l, dy/dh_l> a_l``: what enters each layer times its gradient, times the attention it receives there.

    ``a_l`` is the mean over attention heads and queries. Source: Qiang et al., AttCAT, NeurIPS 2022; here the mean is
    over the positions of the text, padding left out.
    """

    @override
    def look(self, network: TransformerModel, batch: Batch, target: Tensor) -> Tensor:
        """Signed."""
        traced = trace(network, batch, target)
        gradients = traced.gradients(traced.states)
        total = torch.zeros(batch.valid.shape, device=batch.device)
        reading = batch.valid[:, None, :, None]
        for state, gradient, weights in zip(traced.states, gradients, traced.maps, strict=True):
            received = (weights.detach() * reading).mean(dim=1).sum(dim=1) / _lengths(batch)
            total = total + (state.detach() * gradient).sum(dim=-1) * received
        return total


def _lengths(batch: Batch) -> Tensor:
    """Positions that each text has, shape ``(B, 1)``; 1 if it has none."""
    return batch.valid.sum(dim=-1, keepdim=True).clamp(min=1)
