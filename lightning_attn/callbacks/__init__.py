"""Callbacks: when to measure, what to show, what to keep."""

from lightning_attn.callbacks.attention_table import AttentionTableCallback
from lightning_attn.callbacks.checkpoint import BestAndLastCheckpoint
from lightning_attn.callbacks.epoch_lines import EpochLines
from lightning_attn.callbacks.faithfulness import FaithfulnessCallback
from lightning_attn.callbacks.predictions import PredictionsFile
from lightning_attn.callbacks.step_seed import StepSeed

__all__ = [
    "AttentionTableCallback",
    "BestAndLastCheckpoint",
    "EpochLines",
    "FaithfulnessCallback",
    "PredictionsFile",
    "StepSeed",
]
