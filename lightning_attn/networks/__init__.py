"""Networks: encoder, attention and head behind one contract."""

from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.heads import Head, LinearHead, MLPHead, PairHead
from lightning_attn.networks.paired import PairedNetwork
from lightning_attn.networks.pooled import PooledNetwork

__all__ = ["AttentionNetwork", "Head", "LinearHead", "MLPHead", "PairHead", "PairedNetwork", "PooledNetwork"]
