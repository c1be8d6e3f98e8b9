"""Callbacks: when to measure, what to show, what to keep."""

from typing import TYPE_CHECKING

from lightning_attn.callbacks.answer_recall import AnswerRecallCallback
from lightning_attn.callbacks.attention_table import AttentionTableCallback
from lightning_attn.callbacks.bag_images import BagImagesCallback
from lightning_attn.callbacks.checkpoint import BestAndLastCheckpoint
from lightning_attn.callbacks.epoch_lines import EpochLines
from lightning_attn.callbacks.faithfulness import FaithfulnessCallback
from lightning_attn.callbacks.instances import InstanceCallback
from lightning_attn.callbacks.predictions import AnswersFile, PredictionsFile
from lightning_attn.callbacks.selection import SelectionCallback
from lightning_attn.callbacks.shortcut import ShortcutProbe
from lightning_attn.callbacks.step_seed import StepSeed
from lightning_attn.compat import renamed

__all__ = [
    "AnswerRecallCallback",
    "AnswersFile",
    "AttentionTableCallback",
    "BagImagesCallback",
    "BestAndLastCheckpoint",
    "EpochLines",
    "FaithfulnessCallback",
    "InstanceCallback",
    "PredictionsFile",
    "SelectionCallback",
    "ShortcutProbe",
    "StepSeed",
]

if not TYPE_CHECKING:
    __getattr__ = renamed(__name__)  # names of 0.1.0
