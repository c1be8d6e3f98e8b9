"""How the effects of several budgets become one number a text: `EveryBudget`, `DistinctBudgets`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Averaging(ABC):
    """A mean over the budgets of a text."""

    @abstractmethod
    def of(self, values: Tensor, taken: Tensor, empty: float) -> Tensor:
        """One number a text, shape ``(B,)``.

        Args:
            values: Of each budget, shape ``(B, K)``.
            taken: What each budget takes, shape ``(B, K, L)``, bool.
            empty: The number of a text of which no budget takes anything.
        """


@dataclass(frozen=True)
class EveryBudget(Averaging):
    """The mean of all budgets, whatever they take."""

    def of(self, values: Tensor, taken: Tensor, empty: float) -> Tensor:
        """See :meth:`Averaging.of`; ``empty`` is not needed."""
        return values.mean(dim=-1)


@dataclass(frozen=True)
class DistinctBudgets(Averaging):
    """The mean of the budgets that take something, and something else than the one before.

    An attribution with few positive tokens is averaged over fewer and smaller budgets than others. Source: ferret.
    """

    def of(self, values: Tensor, taken: Tensor, empty: float) -> Tensor:
        """See :meth:`Averaging.of`."""
        sizes = taken.sum(dim=-1)  # a larger budget takes what a smaller one does
        before = torch.nn.functional.pad(sizes, (1, 0))[:, :-1]
        counted = (sizes > 0) & (sizes != before)
        count = counted.sum(dim=-1)
        total = values.masked_fill(~counted, 0.0).sum(dim=-1)
        return torch.where(count > 0, total / count.clamp(min=1), empty)
