"""Faithfulness, plausibility and shortcut metrics: torchmetrics classes, and `measure` for all of a batch at once."""

from lightning_attn.metrics.answers import AnswerRecall, BestAnswers
from lightning_attn.metrics.base import ChunkMean, ExampleMean, PerExampleMean
from lightning_attn.metrics.concentration import EffectiveTokens, Entropy, MaxAttention, SpecialMass
from lightning_attn.metrics.disagreement import (
    Disagreement,
    MemberJSD,
    MemberRankCorrelation,
    MemberTopOverlap,
    RiskCoverageGain,
    disagreement,
)
from lightning_attn.metrics.faithfulness import (
    AOPC,
    AdversarialJSD,
    Comprehensiveness,
    KendallSignificant,
    KendallTau,
    LogOdds,
    PermutationTVD,
    Sufficiency,
)
from lightning_attn.metrics.instances import PooledAUROC, PooledAveragePrecision, class_log_weights, instance_aopc_r
from lightning_attn.metrics.leakage import LeakedBits
from lightning_attn.metrics.plausibility import IOUF1, EvidenceAUPRC, EvidenceAUROC, TokenF1
from lightning_attn.metrics.presets import PRESETS, Preset, get_preset
from lightning_attn.metrics.suite import COSTLY_MEASURES, DEFAULT_MEASURES, ERASURE, MEASURES, Settings, measure

__all__ = [
    "AOPC",
    "COSTLY_MEASURES",
    "DEFAULT_MEASURES",
    "ERASURE",
    "IOUF1",
    "MEASURES",
    "PRESETS",
    "AdversarialJSD",
    "AnswerRecall",
    "BestAnswers",
    "ChunkMean",
    "Comprehensiveness",
    "Disagreement",
    "EffectiveTokens",
    "Entropy",
    "EvidenceAUPRC",
    "EvidenceAUROC",
    "ExampleMean",
    "KendallSignificant",
    "KendallTau",
    "LeakedBits",
    "LogOdds",
    "MaxAttention",
    "MemberJSD",
    "MemberRankCorrelation",
    "MemberTopOverlap",
    "PerExampleMean",
    "PermutationTVD",
    "PooledAUROC",
    "PooledAveragePrecision",
    "Preset",
    "RiskCoverageGain",
    "Settings",
    "SpecialMass",
    "Sufficiency",
    "TokenF1",
    "class_log_weights",
    "disagreement",
    "get_preset",
    "instance_aopc_r",
    "measure",
]
