"""Keys to attention weights: the base class of every attention layer, and the softmax over allowed positions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lightning_attn.mitigations.base import Mitigation, NoMitigation
from lightning_attn.types import Batch


def attendable(batch: Batch, attend_special: bool = False) -> Tensor:
    """Positions that may receive attention, shape ``(B, L)``, bool.

    Special tokens are left out unless ``attend_special``; a text that has nothing else attends to them all the same,
    because attention must be a distribution.
    """
    if attend_special:
        return batch.valid
    inner = batch.inner
    return torch.where(inner.any(dim=-1, keepdim=True), inner, batch.valid)


def masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over the allowed positions of the last dimension, exactly 0 elsewhere.

    Args:
        scores: Shape ``(B, L)``, finite where allowed.
        allowed: Shape ``(B, L)``, bool; a row without any allowed position gives zeros, never NaN.

    Returns:
        Weights that sum to 1 in every row that allows something, shape ``(B, L)``.
    """
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights.masked_fill(~allowed, 0.0)


class Attention(nn.Module, ABC):
    """Scores positions, turns scores into weights, and lets its mitigation decide what the head sees in training.

    Args:
        temperature: Scores are divided by it before softmax; above 1 flattens, below 1 sharpens. Positive.
        attend_special: Whether special tokens may receive attention.

    Raises:
        ValueError: ``temperature`` is not positive.
    """

    def __init__(self, temperature: float = 1.0, attend_special: bool = False) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature = temperature
        self.attend_special = attend_special
        self.mitigation: Mitigation = NoMitigation()

    @abstractmethod
    def make_layers(self, key_size: int) -> None:
        """Create the scorer's layers for keys of ``key_size`` numbers; the network calls it."""

    @abstractmethod
    def score(self, keys: Tensor) -> Tensor:
        """Unnormalised scores, shape ``(B, L)``, from keys ``(B, L, K)``."""

    def forward(self, keys: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, learned weights and the weights that the head is to use, each of shape ``(B, L)``.

        Args:
            keys: Shape ``(B, L, K)``.
            batch: Says which positions are valid and special.
        """
        allowed = attendable(batch, self.attend_special)
        scores = (self.score(keys) / self.temperature).masked_fill(~allowed, torch.finfo(keys.dtype).min)
        learned = masked_softmax(scores, allowed)
        observed = self.mitigation.observe(learned, batch) if self.training else learned
        return scores, learned, observed
