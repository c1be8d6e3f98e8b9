"""Encoders: tokens or instances to keys and values."""

from typing import TYPE_CHECKING

from lightning_attn.compat import renamed
from lightning_attn.encoders.base import Encoder
from lightning_attn.encoders.bilstm import BiLSTM
from lightning_attn.encoders.cnn import CNN
from lightning_attn.encoders.instances import MLP, Identity, InstanceEncoder, LeNet, SequenceCNN
from lightning_attn.encoders.patches import PatchEncoder, PictureCNN
from lightning_attn.encoders.pretrained import PretrainedEncoder
from lightning_attn.encoders.token_mlp import TokenMLP

__all__ = [
    "CNN",
    "MLP",
    "BiLSTM",
    "Encoder",
    "Identity",
    "InstanceEncoder",
    "LeNet",
    "PatchEncoder",
    "PictureCNN",
    "PretrainedEncoder",
    "SequenceCNN",
    "TokenMLP",
]

if not TYPE_CHECKING:
    __getattr__ = renamed(__name__)  # names of 0.1.0
