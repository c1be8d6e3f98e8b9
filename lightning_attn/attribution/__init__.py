"""Attributions: one verb, ``attribute(network, batch, target)``; `get` makes one by name."""

from lightning_attn.attribution.attention import AttentionWeights
from lightning_attn.attribution.base import METHODS, Attribution, get, register
from lightning_attn.attribution.gradient import AbsoluteGradientXInput, GradientNorm, GradientXInput
from lightning_attn.attribution.integrated_gradients import IntegratedGradients
from lightning_attn.attribution.occlusion import Occlusion
from lightning_attn.attribution.random import Random

__all__ = [
    "METHODS",
    "AbsoluteGradientXInput",
    "AttentionWeights",
    "Attribution",
    "GradientNorm",
    "GradientXInput",
    "IntegratedGradients",
    "Occlusion",
    "Random",
    "get",
    "register",
]
