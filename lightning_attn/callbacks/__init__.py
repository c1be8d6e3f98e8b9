"""Callbacks: when to measure, and what to show."""

from lightning_attn.callbacks.attention_table import AttentionTableCallback
from lightning_attn.callbacks.faithfulness import FaithfulnessCallback

__all__ = ["AttentionTableCallback", "FaithfulnessCallback"]
