"""LightningModules: loss, optimiser, phases."""

from lightning_attn.tasks.base import AttentionModule
from lightning_attn.tasks.black_box import BlackBoxExplainer
from lightning_attn.tasks.classification import AttentionClassifier
from lightning_attn.tasks.question_answering import QuestionAnswerer

__all__ = [
    "AttentionClassifier",
    "AttentionModule",
    "BlackBoxExplainer",
    "QuestionAnswerer",
]
