"""Faithfulness, plausibility and shortcut metrics.

`measure` gives all of a batch at once; `functional` has each as a pure function; `ExampleMean` makes a
``torchmetrics.Metric`` of any of these.
"""

from lightning_attn.metrics.answers import AnswerRecall, BestAnswers
from lightning_attn.metrics.base import IOUF1, ChunkMean, ExampleMean, PerExampleMean
from lightning_attn.metrics.disagreement import Disagreement, RiskCoverageGain, disagreement
from lightning_attn.metrics.instances import PooledAUROC, PooledAveragePrecision, class_log_weights, instance_aopc_r
from lightning_attn.metrics.measurement import ERASURE, Settings
from lightning_attn.metrics.presets import PRESETS, Preset, get_preset
from lightning_attn.metrics.shortcut import LeakedBits
from lightning_attn.metrics.suite import COSTLY_MEASURES, DEFAULT_MEASURES, MEASURES, measure

__all__ = [
    "COSTLY_MEASURES",
    "DEFAULT_MEASURES",
    "ERASURE",
    "IOUF1",
    "MEASURES",
    "PRESETS",
    "AnswerRecall",
    "BestAnswers",
    "ChunkMean",
    "Disagreement",
    "ExampleMean",
    "LeakedBits",
    "PerExampleMean",
    "PooledAUROC",
    "PooledAveragePrecision",
    "Preset",
    "RiskCoverageGain",
    "Settings",
    "class_log_weights",
    "disagreement",
    "get_preset",
    "instance_aopc_r",
    "measure",
]
