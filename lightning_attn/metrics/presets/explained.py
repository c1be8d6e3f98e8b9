"""Which class a perturbation is watched by: `Predicted`, `Gold`, `Fixed`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.types import Batch


class ExplainedClass(ABC):
    """Chooses one class of each text, which is kept for all its perturbations."""

    @abstractmethod
    def of(self, logits: Tensor, batch: Batch) -> Tensor:
        """The class, shape ``(B,)``, int64.

        Args:
            logits: Of the unperturbed texts, shape ``(B, C)``.
            batch: The texts.
        """


@dataclass(frozen=True)
class Predicted(ExplainedClass):
    """The most probable class of the unperturbed text."""

    def of(self, logits: Tensor, batch: Batch) -> Tensor:
        """See :meth:`ExplainedClass.of`."""
        return logits.argmax(dim=-1)


@dataclass(frozen=True)
class Gold(ExplainedClass):
    """The true class."""

    def of(self, logits: Tensor, batch: Batch) -> Tensor:
        """See :meth:`ExplainedClass.of`.

        Raises:
            InputError: A text may have several classes.
        """
        if batch.target.dim() > 1:
            raise InputError("A preset that explains the gold class needs texts of one class each (not multi-label).")
        return batch.target


@dataclass(frozen=True)
class Fixed(ExplainedClass):
    """The same class of all texts.

    Attributes:
        number: From 0.
    """

    number: int

    def of(self, logits: Tensor, batch: Batch) -> Tensor:
        """See :meth:`ExplainedClass.of`.

        Raises:
            InputError: There is no such class.
        """
        if not 0 <= self.number < logits.shape[-1]:
            raise InputError(f"There is no class {self.number} to explain: there are {logits.shape[-1]}, from 0.")
        return torch.full_like(batch.index, self.number)
