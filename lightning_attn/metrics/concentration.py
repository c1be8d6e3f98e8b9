"""Concentration of attention as torchmetrics classes; the mathematics is in ``metrics/functional``."""

from __future__ import annotations

from torch import Tensor

from lightning_attn.metrics.base import PerExampleMean
from lightning_attn.metrics.functional.concentration import effective_tokens, entropy, max_attention, special_mass


class Entropy(PerExampleMean):
    """Mean of :func:`entropy` over distinct examples, in nats."""

    def update(self, attention: Tensor, index: Tensor) -> None:
        """Add a batch: weights ``(B, L)``, indices ``(B,)``."""
        self.add(entropy(attention), index)


class EffectiveTokens(PerExampleMean):
    """Mean of :func:`effective_tokens` over distinct examples."""

    def update(self, attention: Tensor, index: Tensor) -> None:
        """Add a batch: weights ``(B, L)``, indices ``(B,)``."""
        self.add(effective_tokens(attention), index)


class MaxAttention(PerExampleMean):
    """Mean of :func:`max_attention` over distinct examples."""

    def update(self, attention: Tensor, index: Tensor) -> None:
        """Add a batch: weights ``(B, L)``, indices ``(B,)``."""
        self.add(max_attention(attention), index)


class SpecialMass(PerExampleMean):
    """Mean of :func:`special_mass` over distinct examples."""

    higher_is_better = False

    def update(self, attention: Tensor, special: Tensor, index: Tensor) -> None:
        """Add a batch: weights ``(B, L)``, ``Batch.special`` ``(B, L)``, indices ``(B,)``."""
        self.add(special_mass(attention, special), index)
