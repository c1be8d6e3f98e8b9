"""Bags of instances: made by a seed, with known important instances, or read from files."""

from lightning_attn.data.bags.arrays import BagArrayDataModule
from lightning_attn.data.bags.base import SetDataModule
from lightning_attn.data.bags.bayes import class_posterior
from lightning_attn.data.bags.confounders import Confounder, CorrelatedBackground, Poison
from lightning_attn.data.bags.dataset import BagBatches, BagDataset, Bags
from lightning_attn.data.bags.digit_pairs import DigitPairsDataModule
from lightning_attn.data.bags.modalities import (
    MNIST,
    Digits,
    ExpressionCounts,
    GaussianClusters,
    GeneratedModality,
    Modality,
    MotifSequences,
    PooledModality,
    Sentences,
)
from lightning_attn.data.bags.synthetic import BagDataModule, BagSize, FixedSize, NormalSize
from lightning_attn.data.bags.tables import BagTableDataModule
from lightning_attn.data.bags.tasks import (
    BagTask,
    Conjunction,
    Count,
    ExclusiveOr,
    FourBags,
    Majority,
    Presence,
    PresenceWithVeto,
    Role,
)

__all__ = [
    "MNIST",
    "BagArrayDataModule",
    "BagBatches",
    "BagDataModule",
    "BagDataset",
    "BagSize",
    "BagTableDataModule",
    "BagTask",
    "Bags",
    "Confounder",
    "Conjunction",
    "CorrelatedBackground",
    "Count",
    "DigitPairsDataModule",
    "Digits",
    "ExclusiveOr",
    "ExpressionCounts",
    "FixedSize",
    "FourBags",
    "GaussianClusters",
    "GeneratedModality",
    "Majority",
    "Modality",
    "MotifSequences",
    "NormalSize",
    "Poison",
    "PooledModality",
    "Presence",
    "PresenceWithVeto",
    "Role",
    "Sentences",
    "SetDataModule",
    "class_posterior",
]
