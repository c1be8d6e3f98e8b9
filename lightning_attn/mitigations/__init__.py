"""Mitigations: ways to keep label information out of the attention weights."""

from lightning_attn.mitigations.attention_dropout import AttentionDropout
from lightning_attn.mitigations.base import Mitigation, NoMitigation
from lightning_attn.mitigations.compose import Compose
from lightning_attn.mitigations.instance_weighting import InstanceWeighting
from lightning_attn.mitigations.leakage_penalty import LeakagePenalty
from lightning_attn.mitigations.mask_classifier import (
    BagMaskClassifier,
    ConvolutionalMaskClassifier,
    MaskClassifier,
    RecurrentMaskClassifier,
    SetMaskClassifier,
    SummaryMaskClassifier,
)
from lightning_attn.mitigations.masked_fine_tuning import MaskedFineTuning
from lightning_attn.mitigations.random_attention import (
    BernoulliShare,
    BernoulliSubset,
    Dirichlet,
    RandomAttention,
    Shuffled,
    SoftmaxNormal,
    Uniform,
    UniformShare,
    UniformSubset,
)
from lightning_attn.mitigations.random_mixing import RandomMixing
from lightning_attn.mitigations.random_pretraining import RandomPretraining, WarmStart

__all__ = [
    "AttentionDropout",
    "BagMaskClassifier",
    "BernoulliShare",
    "BernoulliSubset",
    "Compose",
    "ConvolutionalMaskClassifier",
    "Dirichlet",
    "InstanceWeighting",
    "LeakagePenalty",
    "MaskClassifier",
    "MaskedFineTuning",
    "Mitigation",
    "NoMitigation",
    "RandomAttention",
    "RandomMixing",
    "RandomPretraining",
    "RecurrentMaskClassifier",
    "SetMaskClassifier",
    "Shuffled",
    "SoftmaxNormal",
    "SummaryMaskClassifier",
    "Uniform",
    "UniformShare",
    "UniformSubset",
    "WarmStart",
]
