"""Attention layers: keys to weights."""

from lightning_attn.attention.additive import AdditiveAttention
from lightning_attn.attention.base import Attention, AttentionLayer
from lightning_attn.attention.dot import DotAttention
from lightning_attn.attention.gated import GatedAttention
from lightning_attn.attention.query import AdditiveQueryAttention, DotQueryAttention, QueryAttention
from lightning_attn.attention.random import Dirichlet, RandomAttention, Shuffled, SoftmaxNormal, UniformSubset
from lightning_attn.attention.softmax import attendable, masked_softmax

__all__ = [
    "AdditiveAttention",
    "AdditiveQueryAttention",
    "Attention",
    "AttentionLayer",
    "Dirichlet",
    "DotAttention",
    "DotQueryAttention",
    "GatedAttention",
    "QueryAttention",
    "RandomAttention",
    "Shuffled",
    "SoftmaxNormal",
    "UniformSubset",
    "attendable",
    "masked_softmax",
]
