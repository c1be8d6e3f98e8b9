"""Faithfulness, plausibility and shortcut metrics: torchmetrics classes, and `measure` for all of a batch at once."""

from lightning_attn.metrics.base import ExampleMean, PerExampleMean
from lightning_attn.metrics.concentration import EffectiveTokens, Entropy, MaxAttention, SpecialMass
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
from lightning_attn.metrics.leakage import LeakedBits
from lightning_attn.metrics.plausibility import IOUF1, EvidenceAUPRC, EvidenceAUROC, TokenF1
from lightning_attn.metrics.suite import DEFAULT_MEASURES, MEASURES, Settings, measure

__all__ = [
    "AOPC",
    "DEFAULT_MEASURES",
    "IOUF1",
    "MEASURES",
    "AdversarialJSD",
    "Comprehensiveness",
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
    "PerExampleMean",
    "PermutationTVD",
    "Settings",
    "SpecialMass",
    "Sufficiency",
    "TokenF1",
    "measure",
]
