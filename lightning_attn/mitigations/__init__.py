"""Mitigations: ways to keep label information out of the attention weights."""

from lightning_attn.mitigations.base import Mitigation, NoMitigation
from lightning_attn.mitigations.compose import Compose
from lightning_attn.mitigations.instance_weighting import InstanceWeighting
from lightning_attn.mitigations.mask_classifier import MaskClassifier, SetMaskClassifier
from lightning_attn.mitigations.random_pretraining import RandomPretraining

__all__ = [
    "Compose",
    "InstanceWeighting",
    "MaskClassifier",
    "Mitigation",
    "NoMitigation",
    "RandomPretraining",
    "SetMaskClassifier",
]
