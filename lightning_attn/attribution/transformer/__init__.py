"""Attributions that look inside the self-attention of a :class:`~lightning_attn.networks.TransformerNetwork`."""

from lightning_attn.attribution.transformer.attention_gradients import AttCAT, AttentionGradCAM, AttentionGradient
from lightning_attn.attribution.transformer.attention_maps import RawAttention, Rollout
from lightning_attn.attribution.transformer.base import TransformerAttribution
from lightning_attn.attribution.transformer.gradient_lrp import CPLRP, AttnLRP
from lightning_attn.attribution.transformer.head_rules import ChosenHeads, EveryHead, HeadRule, ReleasedChosenHeads
from lightning_attn.attribution.transformer.heads_file import HeadsFile, read_heads, write_heads
from lightning_attn.attribution.transformer.lrp import FullLRP, PartialLRP
from lightning_attn.attribution.transformer.transatt import MaskLRP, ReleasedMaskLRP, TransAtt

__all__ = [
    "CPLRP",
    "AttCAT",
    "AttentionGradCAM",
    "AttentionGradient",
    "AttnLRP",
    "ChosenHeads",
    "EveryHead",
    "FullLRP",
    "HeadRule",
    "HeadsFile",
    "MaskLRP",
    "PartialLRP",
    "RawAttention",
    "ReleasedChosenHeads",
    "ReleasedMaskLRP",
    "Rollout",
    "TransAtt",
    "TransformerAttribution",
    "read_heads",
    "write_heads",
]
