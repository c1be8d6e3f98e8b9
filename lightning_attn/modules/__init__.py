"""LightningModules: loss, optimiser, phases."""

from lightning_attn.modules.base import AttentionModule
from lightning_attn.modules.black_box import BlackBoxExplainer
from lightning_attn.modules.classification import AttentionClassifier
from lightning_attn.modules.question_answering import QuestionAnswerer

__all__ = ["AttentionClassifier", "AttentionModule", "BlackBoxExplainer", "QuestionAnswerer"]
