"""How a network is trained: learning rates over the steps, and what differs between parameters."""

from lightning_attn.optim.rules import LayerRates, NoDecayOfNormsAndBiases, ParameterRule, parameter_groups
from lightning_attn.optim.schedules import StepSchedule, WarmupConstant, WarmupCosine, WarmupLinear

__all__ = [
    "LayerRates",
    "NoDecayOfNormsAndBiases",
    "ParameterRule",
    "StepSchedule",
    "WarmupConstant",
    "WarmupCosine",
    "WarmupLinear",
    "parameter_groups",
]
