"""Attributions that look inside the self-attention of a :class:`~lightning_attn.networks.TransformerNetwork`."""

from lightning_attn.attribution.transformer.attention import (
    AttCAT,
    AttentionGradCAM,
    AttentionGradient,
    RawAttention,
    Rollout,
)
from lightning_attn.attribution.transformer.base import TransformerAttribution
from lightning_attn.attribution.transformer.gradient_lrp import CPLRP, AttnLRP
from lightning_attn.attribution.transformer.lrp import FullLRP, MaskLRP, PartialLRP, ReleasedMaskLRP, TransAtt
from lightning_attn.attribution.transformer.rules import ChosenHeads, EveryHead, HeadRule, ReleasedChosenHeads

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
    "MaskLRP",
    "PartialLRP",
    "RawAttention",
    "ReleasedChosenHeads",
    "ReleasedMaskLRP",
    "Rollout",
    "TransAtt",
    "TransformerAttribution",
]
