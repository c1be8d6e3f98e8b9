"""Which texts are long enough to be measured: `InnerLength`, `WholeLength`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lightning_attn.types import Batch


class TextFilter(ABC):
    """Leaves texts out; they are counted as skipped."""

    @abstractmethod
    def keeps(self, batch: Batch) -> Tensor:
        """Which texts are measured, shape ``(B,)``, bool."""


@dataclass(frozen=True)
class InnerLength(TextFilter):
    """Texts of so many tokens or more, special ones not counted.

    Attributes:
        least: 0 keeps all.
    """

    least: int = 2

    def keeps(self, batch: Batch) -> Tensor:
        """See :meth:`TextFilter.keeps`."""
        return batch.inner.sum(dim=-1) >= self.least


@dataclass(frozen=True)
class WholeLength(TextFilter):
    """Texts of so many tokens or more, special ones counted.

    Attributes:
        least: 0 keeps all.
    """

    least: int

    def keeps(self, batch: Batch) -> Tensor:
        """See :meth:`TextFilter.keeps`."""
        return batch.valid.sum(dim=-1) >= self.least
