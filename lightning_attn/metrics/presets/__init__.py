"""Same names, different quantities: how several publications measure what removing tokens does."""

from lightning_attn.metrics.presets.averaging import Averaging, DistinctBudgets, EveryBudget
from lightning_attn.metrics.presets.change import AbsoluteDrop, Change, OutputChange, SignedDrop
from lightning_attn.metrics.presets.explained import ExplainedClass, Fixed, Gold, Predicted
from lightning_attn.metrics.presets.preset import Erasure, Preset
from lightning_attn.metrics.presets.ranking import Absolute, PositiveOnly, Ranking, Signed, SparesLast
from lightning_attn.metrics.presets.registry import PRESETS, get_preset
from lightning_attn.metrics.presets.texts import InnerLength, TextFilter, WholeLength

__all__ = [
    "PRESETS",
    "Absolute",
    "AbsoluteDrop",
    "Averaging",
    "Change",
    "DistinctBudgets",
    "Erasure",
    "EveryBudget",
    "ExplainedClass",
    "Fixed",
    "Gold",
    "InnerLength",
    "OutputChange",
    "PositiveOnly",
    "Predicted",
    "Preset",
    "Ranking",
    "Signed",
    "SignedDrop",
    "SparesLast",
    "TextFilter",
    "WholeLength",
    "get_preset",
]
