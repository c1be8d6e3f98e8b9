"""The explanations that are compared, by the name of their row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_attn.attribution import (
    CPLRP,
    AttCAT,
    AttentionGradCAM,
    AttentionGradient,
    AttnLRP,
    Attribution,
    FullLRP,
    GradientNorm,
    GradientXInput,
    IntegratedGradients,
    MaskLRP,
    PartialLRP,
    Random,
    RawAttention,
    ReleasedMaskLRP,
    Rollout,
    SmoothGradient,
    TransAtt,
)

Heads = Sequence[Sequence[int]]
MAX_TOKENS = 4096  # positions in one pass of the methods that make many: two processes share the memory

#: From a cell and the important attention heads of its model. Gradients also flow through the weights.
METHODS: dict[str, Callable[[Mapping[str, Any], Heads], Attribution]] = {
    "random": lambda cell, heads: Random(),
    "raw attention": lambda cell, heads: RawAttention(),
    "rollout": lambda cell, heads: Rollout(),
    "attention gradient": lambda cell, heads: AttentionGradient(),
    "attention Grad-CAM": lambda cell, heads: AttentionGradCAM(),
    "partial LRP": lambda cell, heads: PartialLRP(),
    "full LRP": lambda cell, heads: FullLRP(),
    "TransAtt": lambda cell, heads: TransAtt(),
    "AttCAT": lambda cell, heads: AttCAT(),
    "Mask-LRP released": lambda cell, heads: ReleasedMaskLRP(heads),
    "Mask-LRP clean": lambda cell, heads: MaskLRP(heads),
    "gradient": lambda cell, heads: GradientNorm(attention_fixed=False),
    "gradient x input": lambda cell, heads: GradientXInput(attention_fixed=False),
    "integrated gradients": lambda cell, heads: IntegratedGradients(cell["steps"], MAX_TOKENS),
    "SmoothGrad": lambda cell, heads: SmoothGradient(samples=cell["samples"], max_tokens=MAX_TOKENS),
    "gradient-form LRP": lambda cell, heads: AttnLRP(),
    "gradient-form LRP, weights fixed": lambda cell, heads: CPLRP(),
}
