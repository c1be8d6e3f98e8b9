"""Which positions a budget takes: `Signed`, `Absolute`, `PositiveOnly`, `SparesLast`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.perturbation.sweep import ranks
from lightning_attn.types import Batch


class Ranking(ABC):
    """Takes the best-ranked positions; ties go to the earlier one."""

    @abstractmethod
    def taken(self, scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
        """What each budget takes, shape ``(B, K, L)``, bool; never special positions or padding.

        Args:
            scores: An attribution, shape ``(B, L)``.
            batch: The texts.
            counts: Positions of each budget, shape ``(B, K)``.
        """


@dataclass(frozen=True)
class Signed(Ranking):
    """By the scores as they are: negative ones last."""

    def taken(self, scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
        """See :meth:`Ranking.taken`."""
        return (ranks(scores, batch)[:, None] < counts[..., None]) & batch.inner[:, None]


@dataclass(frozen=True)
class Absolute(Signed):
    """By the absolute scores."""

    def taken(self, scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
        """See :meth:`Ranking.taken`."""
        return super().taken(scores.abs(), batch, counts)


@dataclass(frozen=True)
class PositiveOnly(Signed):
    """As :class:`Signed`, but positions whose score is not positive are never taken: a budget may stay unspent."""

    def taken(self, scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
        """See :meth:`Ranking.taken`."""
        return super().taken(scores, batch, counts) & (scores > 0)[:, None]


@dataclass(frozen=True)
class SparesLast(Signed):
    """As :class:`Signed`, but what ranks last of all positions is never taken.

    Special positions rank along, with their scores (0 in an attribution): where all others are positive, it is one of
    them that ranks last, and nothing is spared. Source: code of Mask-LRP.
    """

    def taken(self, scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
        """See :meth:`Ranking.taken`."""
        order = scores.masked_fill(~batch.valid, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        last = order.gather(1, (batch.valid.sum(dim=1, keepdim=True) - 1).clamp(min=0))
        spared = torch.arange(scores.shape[1], device=scores.device) == last
        return super().taken(scores, batch, counts) & ~spared[:, None]
