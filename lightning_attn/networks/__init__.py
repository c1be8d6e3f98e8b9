"""Networks: encoder, attention and head behind one contract."""

from typing import TYPE_CHECKING

from lightning_attn.compat import renamed
from lightning_attn.networks.bags import AdditiveBagNetwork, BagNetwork, InstanceNetwork, MaxBagNetwork
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.classifiers import Classifier, LinearClassifier, MLPClassifier, PairClassifier
from lightning_attn.networks.combinations import Combination, GeometricMean, MeanLogit, MeanProbability, MeanRank
from lightning_attn.networks.content_free import ContentFreeNetwork
from lightning_attn.networks.ensemble import AttentionEnsemble
from lightning_attn.networks.frozen_attention import FrozenAttention
from lightning_attn.networks.multihead_bags import ClassBagNetwork, MultiHeadBagNetwork
from lightning_attn.networks.paired import PairedNetwork
from lightning_attn.networks.patches import PatchNetwork
from lightning_attn.networks.pooled import PooledNetwork
from lightning_attn.networks.scaling import ConvTaSc, FeatTaSc, LinTaSc, TypeScale, ValueScaling
from lightning_attn.networks.selector import (
    BagSelectorNetwork,
    MaskedInputNetwork,
    MaskingNetwork,
    PictureSelectorNetwork,
    SelectorNetwork,
)
from lightning_attn.networks.transformer.classifier import TransformerNetwork
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.qa import TransformerQANetwork

__all__ = [
    "AdditiveBagNetwork",
    "AttentionEnsemble",
    "AttentionNetwork",
    "BagNetwork",
    "BagSelectorNetwork",
    "ClassBagNetwork",
    "Classifier",
    "Combination",
    "ContentFreeNetwork",
    "ConvTaSc",
    "FeatTaSc",
    "FrozenAttention",
    "GeometricMean",
    "InstanceNetwork",
    "LinTaSc",
    "LinearClassifier",
    "MLPClassifier",
    "MaskedInputNetwork",
    "MaskingNetwork",
    "MaxBagNetwork",
    "MeanLogit",
    "MeanProbability",
    "MeanRank",
    "MultiHeadBagNetwork",
    "PairClassifier",
    "PairedNetwork",
    "PatchNetwork",
    "PictureSelectorNetwork",
    "PooledNetwork",
    "SelectorNetwork",
    "TransformerModel",
    "TransformerNetwork",
    "TransformerQANetwork",
    "TypeScale",
    "ValueScaling",
]

if not TYPE_CHECKING:
    __getattr__ = renamed(__name__)  # names of 0.1.0
