"""Attributions: one verb, ``attribute(network, batch, target)``; `get` makes one by name."""

from lightning_attn.attribution.attention import AttentionWeights
from lightning_attn.attribution.base import METHODS, Attribution, get, register
from lightning_attn.attribution.controls import Uniform, Untrained, untrained
from lightning_attn.attribution.gradient import AbsoluteGradientXInput, GradientNorm, GradientXInput
from lightning_attn.attribution.integrated_gradients import IntegratedGradients
from lightning_attn.attribution.kernels import KERNELS, Kernel, get_kernel
from lightning_attn.attribution.lafa import LAFA, Lexicon
from lightning_attn.attribution.neighbour_shap import NeighbourShap
from lightning_attn.attribution.occlusion import Occlusion
from lightning_attn.attribution.random import Random
from lightning_attn.attribution.sampled_gradients import GradientShap, SmoothGradient
from lightning_attn.attribution.squared import InputGradient, SimpleGradient, SquaredIntegratedGradients

__all__ = [
    "KERNELS",
    "LAFA",
    "METHODS",
    "AbsoluteGradientXInput",
    "AttentionWeights",
    "Attribution",
    "GradientNorm",
    "GradientShap",
    "GradientXInput",
    "InputGradient",
    "IntegratedGradients",
    "Kernel",
    "Lexicon",
    "NeighbourShap",
    "Occlusion",
    "Random",
    "SimpleGradient",
    "SmoothGradient",
    "SquaredIntegratedGradients",
    "Uniform",
    "Untrained",
    "get",
    "get_kernel",
    "register",
    "untrained",
]
