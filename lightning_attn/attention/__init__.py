"""Attention layers: keys to weights."""

from lightning_attn.attention.additive import AdditiveAttention
from lightning_attn.attention.base import Attention, attendable, masked_softmax
from lightning_attn.attention.dot import DotAttention
from lightning_attn.attention.gated import GatedAttention

__all__ = ["AdditiveAttention", "Attention", "DotAttention", "GatedAttention", "attendable", "masked_softmax"]
