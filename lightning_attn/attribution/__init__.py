"""Attributions: one verb, ``attribute(network, batch, target)``; `get` makes one by name."""

from lightning_attn.attribution.averaged_gradients import (
    GradientShap,
    IntegratedGradients,
    SmoothGradient,
    SquaredIntegratedGradients,
)
from lightning_attn.attribution.base import METHODS, Attribution, get, register
from lightning_attn.attribution.controls import AttentionWeights, Random, Uniform, Untrained, untrained
from lightning_attn.attribution.gradients import (
    AbsoluteGradientXInput,
    GradientNorm,
    GradientXInput,
    InputGradient,
    SimpleGradient,
)
from lightning_attn.attribution.lafa.kernels import KERNELS, Kernel, get_kernel
from lightning_attn.attribution.lafa.lafa import LAFA, Lexicon
from lightning_attn.attribution.lafa.neighbour_shap import NeighbourShap
from lightning_attn.attribution.occlusion import Occlusion
from lightning_attn.attribution.transformer import (
    CPLRP,
    AttCAT,
    AttentionGradCAM,
    AttentionGradient,
    AttnLRP,
    FullLRP,
    MaskLRP,
    PartialLRP,
    RawAttention,
    ReleasedMaskLRP,
    Rollout,
    TransAtt,
    TransformerAttribution,
)

__all__ = [
    "CPLRP",
    "KERNELS",
    "LAFA",
    "METHODS",
    "AbsoluteGradientXInput",
    "AttCAT",
    "AttentionGradCAM",
    "AttentionGradient",
    "AttentionWeights",
    "AttnLRP",
    "Attribution",
    "FullLRP",
    "GradientNorm",
    "GradientShap",
    "GradientXInput",
    "InputGradient",
    "IntegratedGradients",
    "Kernel",
    "Lexicon",
    "MaskLRP",
    "NeighbourShap",
    "Occlusion",
    "PartialLRP",
    "Random",
    "RawAttention",
    "ReleasedMaskLRP",
    "Rollout",
    "SimpleGradient",
    "SmoothGradient",
    "SquaredIntegratedGradients",
    "TransAtt",
    "TransformerAttribution",
    "Uniform",
    "Untrained",
    "get",
    "get_kernel",
    "register",
    "untrained",
]
