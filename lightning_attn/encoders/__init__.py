"""Encoders: tokens or instances to keys and values."""

from lightning_attn.encoders.average import Average
from lightning_attn.encoders.base import Encoder
from lightning_attn.encoders.bilstm import BiLSTM
from lightning_attn.encoders.cnn import CNN

__all__ = ["CNN", "Average", "BiLSTM", "Encoder"]
