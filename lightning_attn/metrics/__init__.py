"""Faithfulness, plausibility and shortcut metrics: torchmetrics classes, and `measure` for all of a batch at once."""

from lightning_attn.metrics.answers import AnswerRecall, BestAnswers
from lightning_attn.metrics.base import ExampleMean, PerExampleMean
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
from lightning_attn.metrics.suite import DEFAULT_MEASURES, MEASURES, Settings, measure

__all__ = [
    "AOPC",
    "DEFAULT_MEASURES",
    "IOUF1",
    "MEASURES",
    "AdversarialJSD",
    "AnswerRecall",
    "BestAnswers",
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
    "RiskCoverageGain",
    "Settings",
    "SpecialMass",
    "Sufficiency",
    "TokenF1",
    "class_log_weights",
    "disagreement",
    "instance_aopc_r",
    "measure",
]
