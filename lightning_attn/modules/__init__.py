"""LightningModules: loss, optimiser, phases."""

from lightning_attn.modules.base import AttentionModule
from lightning_attn.modules.black_box import BlackBoxExplainer
from lightning_attn.modules.classification import AttentionClassifier

__all__ = ["AttentionClassifier", "AttentionModule", "BlackBoxExplainer"]
