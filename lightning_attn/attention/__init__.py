"""Attention layers: keys to weights."""

from typing import TYPE_CHECKING

from lightning_attn.attention.base import Attention, AttentionLayer
from lightning_attn.attention.maximum import MaxAttention
from lightning_attn.attention.multihead import MultiHeadAdditiveAttention, MultiHeadAttention, MultiHeadGatedAttention
from lightning_attn.attention.query import AdditiveQueryAttention, DotQueryAttention, QueryAttention
from lightning_attn.attention.scorers import (
    AdditiveAttention,
    DotAttention,
    GatedAttention,
    KeylessAttention,
    UniformAttention,
)
from lightning_attn.attention.selection import (
    GumbelTopK,
    L2XSampler,
    Sampler,
    Selection,
    TopKSelection,
    TopShareSelection,
)
from lightning_attn.compat import renamed

__all__ = [
    "AdditiveAttention",
    "AdditiveQueryAttention",
    "Attention",
    "AttentionLayer",
    "DotAttention",
    "DotQueryAttention",
    "GatedAttention",
    "GumbelTopK",
    "KeylessAttention",
    "L2XSampler",
    "MaxAttention",
    "MultiHeadAdditiveAttention",
    "MultiHeadAttention",
    "MultiHeadGatedAttention",
    "QueryAttention",
    "Sampler",
    "Selection",
    "TopKSelection",
    "TopShareSelection",
    "UniformAttention",
]

if not TYPE_CHECKING:
    __getattr__ = renamed(__name__)  # names of 0.1.0
