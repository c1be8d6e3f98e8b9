"""Attention that means something: mitigations, faithfulness metrics and callbacks on PyTorch Lightning.

``import lightning_attn as la`` offers what most programs need; everything is imported when it is first used. The rest
is in ``la.attribution``, ``la.metrics``, ``la.data``, ``la.callbacks``, ``la.experiments``, ``la.optim``,
``la.visualization`` and the packages of the parts of networks: ``la.networks``, ``la.encoders``, ``la.attention``,
``la.mitigations``, ``la.tasks``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightning_attn import compat

if TYPE_CHECKING:
    from pytorch_lightning import Trainer as Trainer

    from lightning_attn.attention import AdditiveAttention as AdditiveAttention
    from lightning_attn.attention import DotAttention as DotAttention
    from lightning_attn.attention import GatedAttention as GatedAttention
    from lightning_attn.attention import TopKSelection as TopKSelection
    from lightning_attn.callbacks import AttentionTableCallback as AttentionTableCallback
    from lightning_attn.callbacks import FaithfulnessCallback as FaithfulnessCallback
    from lightning_attn.callbacks import SelectionCallback as SelectionCallback
    from lightning_attn.callbacks import ShortcutProbe as ShortcutProbe
    from lightning_attn.data import AttentionDataModule as AttentionDataModule
    from lightning_attn.data import BagDataModule as BagDataModule
    from lightning_attn.data import BagTableDataModule as BagTableDataModule
    from lightning_attn.data import HuggingFaceProcessor as HuggingFaceProcessor
    from lightning_attn.data import SyntheticReviewsDataModule as SyntheticReviewsDataModule
    from lightning_attn.data import TextDataModule as TextDataModule
    from lightning_attn.data import WordProcessor as WordProcessor
    from lightning_attn.encoders import CNN as CNN
    from lightning_attn.encoders import BiLSTM as BiLSTM
    from lightning_attn.encoders import Encoder as Encoder
    from lightning_attn.encoders import PretrainedEncoder as PretrainedEncoder
    from lightning_attn.encoders import TokenMLP as TokenMLP
    from lightning_attn.errors import InputError as InputError
    from lightning_attn.explain import Explainer as Explainer
    from lightning_attn.explain import attribute as attribute
    from lightning_attn.metrics import measure as measure
    from lightning_attn.mitigations import AttentionDropout as AttentionDropout
    from lightning_attn.mitigations import Compose as Compose
    from lightning_attn.mitigations import InstanceWeighting as InstanceWeighting
    from lightning_attn.mitigations import LeakagePenalty as LeakagePenalty
    from lightning_attn.mitigations import Mitigation as Mitigation
    from lightning_attn.mitigations import NoMitigation as NoMitigation
    from lightning_attn.mitigations import RandomMixing as RandomMixing
    from lightning_attn.mitigations import RandomPretraining as RandomPretraining
    from lightning_attn.mitigations import WarmStart as WarmStart
    from lightning_attn.networks import AttentionEnsemble as AttentionEnsemble
    from lightning_attn.networks import AttentionNetwork as AttentionNetwork
    from lightning_attn.networks import BagNetwork as BagNetwork
    from lightning_attn.networks import LinearClassifier as LinearClassifier
    from lightning_attn.networks import MLPClassifier as MLPClassifier
    from lightning_attn.networks import PairedNetwork as PairedNetwork
    from lightning_attn.networks import PooledNetwork as PooledNetwork
    from lightning_attn.networks import SelectorNetwork as SelectorNetwork
    from lightning_attn.networks import TransformerNetwork as TransformerNetwork
    from lightning_attn.networks.trained import load_network as load_network
    from lightning_attn.tasks import AttentionClassifier as AttentionClassifier
    from lightning_attn.tasks import BlackBoxExplainer as BlackBoxExplainer
    from lightning_attn.tasks import QuestionAnswerer as QuestionAnswerer
    from lightning_attn.types import AttentionOutput as AttentionOutput
    from lightning_attn.types import Batch as Batch
    from lightning_attn.types import DataSchema as DataSchema

__version__ = "0.2.0.dev0"

#: Where each name is defined; the block above tells type checkers the same, and a test holds them together.
_PLACES = {
    "pytorch_lightning": "Trainer",
    "lightning_attn.attention": "AdditiveAttention DotAttention GatedAttention TopKSelection",
    "lightning_attn.callbacks": "AttentionTableCallback FaithfulnessCallback SelectionCallback ShortcutProbe",
    "lightning_attn.data": "AttentionDataModule BagDataModule BagTableDataModule HuggingFaceProcessor "
    "SyntheticReviewsDataModule TextDataModule WordProcessor",
    "lightning_attn.encoders": "BiLSTM CNN Encoder PretrainedEncoder TokenMLP",
    "lightning_attn.errors": "InputError",
    "lightning_attn.explain": "Explainer attribute",
    "lightning_attn.metrics": "measure",
    "lightning_attn.mitigations": "AttentionDropout Compose InstanceWeighting LeakagePenalty Mitigation NoMitigation "
    "RandomMixing RandomPretraining WarmStart",
    "lightning_attn.networks": "AttentionEnsemble AttentionNetwork BagNetwork LinearClassifier MLPClassifier "
    "PairedNetwork PooledNetwork SelectorNetwork TransformerNetwork",
    "lightning_attn.networks.trained": "load_network",
    "lightning_attn.tasks": "AttentionClassifier BlackBoxExplainer QuestionAnswerer",
    "lightning_attn.types": "AttentionOutput Batch DataSchema",
}
_HOME = {name: module for module, names in _PLACES.items() for name in names.split()}
_PACKAGES = (
    *("attention", "attribution", "callbacks", "data", "encoders", "experiments", "metrics", "mitigations", "networks"),
    *("optim", "tasks", "visualization"),
)

__all__ = sorted(_HOME)

compat.install()


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
        return value
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PACKAGES})
