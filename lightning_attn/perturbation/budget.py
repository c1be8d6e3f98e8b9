"""How many of a text's tokens a perturbation takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.types import Batch


class Budget(ABC):
    """How many positions to take from a text of n."""

    def counts(self, batch: Batch) -> Tensor:
        """K counts for each example, shape ``(B, K)``, int64.

        A count leaves at least one position in a text without special tokens: no empty input.
        """
        n = batch.inner.sum(dim=1)
        bare = ~(batch.special & batch.valid).any(dim=1)
        return torch.minimum(self.grid(self.length(batch)), torch.where(bare, (n - 1).clamp(min=0), n)[:, None])

    def length(self, batch: Batch) -> Tensor:
        """What counts are shares of, shape ``(B,)``: the positions that may be taken."""
        return batch.inner.sum(dim=1)

    @abstractmethod
    def grid(self, n: Tensor) -> Tensor:
        """Counts, shape ``(B, K)``, int64, for texts of ``n`` ``(B,)`` positions, before the cap."""


@dataclass(frozen=True)
class Fractions(Budget):
    """``k = max(1, ceil(fraction * n))`` (DeYoung et al., ERASER, ACL 2020: 1, 5, 10, 20 and 50 %).

    Attributes:
        fractions: In (0, 1].
    """

    fractions: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5)

    @override
    def grid(self, n: Tensor) -> Tensor:
        # In millionths: 0.1 * 30 in floats may come out a little above 3, which must not become 4.
        millionths = torch.tensor([round(fraction * 10**6) for fraction in self.fractions], device=n.device)
        return ((n[:, None] * millionths + 10**6 - 1) // 10**6).clamp(min=1)


@dataclass(frozen=True)
class FlooredFractions(Fractions):
    """``k = floor(fraction * n)``, which may be 0, as in ferret.

    Attributes:
        fractions: In (0, 1].
    """

    @override
    def grid(self, n: Tensor) -> Tensor:
        millionths = torch.tensor([round(fraction * 10**6) for fraction in self.fractions], device=n.device)
        return n[:, None] * millionths // 10**6


@dataclass(frozen=True)
class Steps(Budget):
    """``k_j = round(j / steps * n)`` for j = 1 ... steps; ninths, but of another length, as in AttCAT and Mask-LRP.

    Attributes:
        steps: Number of budgets.
    """

    steps: int = 9

    @override
    def grid(self, n: Tensor) -> Tensor:
        j = torch.arange(1, self.steps + 1, device=n.device)
        return (2 * j * n[:, None] + self.steps) // (2 * self.steps)


@dataclass(frozen=True)
class WholeSteps(Steps):
    """``k_j = round(j / steps * T)`` with T the length of the text, special tokens counted, as in AttCAT and Mask-LRP.

    Special tokens are not taken all the same, so the last budgets may be larger than what there is to take.

    Attributes:
        steps: Number of budgets.
    """

    @override
    def length(self, batch: Batch) -> Tensor:
        return batch.valid.sum(dim=1)
