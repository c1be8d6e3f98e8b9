"""How many of a text's tokens a perturbation takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attn.types import Batch


class Budget(ABC):
    """How many positions to take from a text of n."""

    def counts(self, batch: Batch) -> Tensor:
        """K counts for each example, shape ``(B, K)``, int64.

        A count leaves at least one position in a text without special tokens: no empty input.
        """
        n = batch.inner.sum(dim=1)
        bare = ~(batch.special & batch.valid).any(dim=1)
        return torch.minimum(self.grid(n), torch.where(bare, (n - 1).clamp(min=0), n)[:, None])

    @abstractmethod
    def grid(self, n: Tensor) -> Tensor:
        """Counts, shape ``(B, K)``, int64, for texts of ``n`` ``(B,)`` positions, before the cap."""


class Fractions(Budget):
    """``k = max(1, ceil(fraction * n))`` (DeYoung et al., ERASER, ACL 2020: 1, 5, 10, 20 and 50 %).

    Args:
        fractions: In (0, 1].
    """

    def __init__(self, fractions: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5)) -> None:
        self.fractions = tuple(fractions)

    def grid(self, n: Tensor) -> Tensor:
        """See :meth:`Budget.grid`."""
        # In millionths: 0.1 * 30 in floats may come out a little above 3, which must not become 4.
        millionths = torch.tensor([round(fraction * 10**6) for fraction in self.fractions], device=n.device)
        return ((n[:, None] * millionths + 10**6 - 1) // 10**6).clamp(min=1)


class Steps(Budget):
    """``k_j = round(j / steps * n)`` for j = 1 ... steps; ninths as in AttCAT and Mask-LRP.

    Args:
        steps: Number of budgets.
    """

    def __init__(self, steps: int = 9) -> None:
        self.steps = steps

    def grid(self, n: Tensor) -> Tensor:
        """See :meth:`Budget.grid`."""
        j = torch.arange(1, self.steps + 1, device=n.device)
        return (2 * j * n[:, None] + self.steps) // (2 * self.steps)
