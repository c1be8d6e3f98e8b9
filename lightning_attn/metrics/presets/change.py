"""What counts as the effect of a perturbation: `SignedDrop`, `AbsoluteDrop`, `OutputChange`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lightning_attn.metrics.functional.erasure import explained
from lightning_attn.perturbation.sweep import output_change


class Change(ABC):
    """Compares the output for a perturbed text with that for the whole one."""

    @abstractmethod
    def of(self, full: Tensor, perturbed: Tensor, target: Tensor) -> Tensor:
        """The effect of each perturbation, shape ``(B, V)``.

        Args:
            full: Class probabilities of the whole texts, shape ``(B, C)``.
            perturbed: Those of V perturbations of each, shape ``(B, V, C)``.
            target: The explained class, shape ``(B,)``.
        """


@dataclass(frozen=True)
class SignedDrop(Change):
    """``p_c(x) - p_c(x')``, in [-1, 1]: how much less probable the explained class becomes."""

    def of(self, full: Tensor, perturbed: Tensor, target: Tensor) -> Tensor:
        """See :meth:`Change.of`."""
        return full.gather(-1, target[:, None]) - explained(perturbed, target)


@dataclass(frozen=True)
class AbsoluteDrop(SignedDrop):
    """``|p_c(x) - p_c(x')|``, in [0, 1]: a rise counts like a drop."""

    def of(self, full: Tensor, perturbed: Tensor, target: Tensor) -> Tensor:
        """See :meth:`Change.of`."""
        return super().of(full, perturbed, target).abs()


@dataclass(frozen=True)
class OutputChange(Change):
    """``mean_c |p_c(x) - p_c(x')|``, in [0, 1]: of all classes, whichever is explained."""

    def of(self, full: Tensor, perturbed: Tensor, target: Tensor) -> Tensor:
        """See :meth:`Change.of`."""
        return output_change(full, perturbed)
