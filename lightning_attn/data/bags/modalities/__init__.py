"""What the instances of generated bags look like."""

from lightning_attn.data.bags.modalities.base import GeneratedModality, Modality, PooledModality
from lightning_attn.data.bags.modalities.generated import ExpressionCounts, GaussianClusters, MotifSequences
from lightning_attn.data.bags.modalities.images import MNIST, Digits
from lightning_attn.data.bags.modalities.sentences import Sentences

__all__ = [
    "MNIST",
    "Digits",
    "ExpressionCounts",
    "GaussianClusters",
    "GeneratedModality",
    "Modality",
    "MotifSequences",
    "PooledModality",
    "Sentences",
]
