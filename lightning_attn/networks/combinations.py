"""How the members of an ensemble become one: small classes, chosen by ``class_path`` or by name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_attn.ops.registry import Registry

#: What single precision cannot tell from 0 beside 1: no weight and no probability counts as less, where one member's 0
#: would otherwise overrule all others.
FLOOR = float(torch.finfo(torch.float32).eps)
#: Log-weight of a position that a member cannot attend: finite, so that gradients stay so.
NEVER = -1e30


class Combination(ABC):
    """Pools the distributions that K members give: their attention over positions, their probabilities of classes."""

    @abstractmethod
    def pool(self, logs: Tensor) -> Tensor:
        """Logarithm of the pooled distribution, up to a constant per example.

        Args:
            logs: Log-probabilities of O outcomes from K members, shape ``(..., O, K)``, at most 0.

        Returns:
            Shape ``(..., O)``; the softmax of it is the pooled distribution.
        """

    def attention(self, log_weights: Tensor) -> Tensor:
        """Logarithm of the ensemble's attention, up to a constant per example.

        Args:
            log_weights: Of each member, shape ``(B, L, K)``; :data:`NEVER` where a member cannot attend.

        Returns:
            Shape ``(B, L)``; means nothing where no member can attend.
        """
        return self.pool(log_weights)

    def logits(self, logits: Tensor, multi_label: bool) -> Tensor:
        """The ensemble's logits, which give its combined probabilities back by softmax or sigmoid.

        Args:
            logits: Of each member, shape ``(B, C, K)``.
            multi_label: Each class is a distribution of its own over yes and no.

        Returns:
            Shape ``(B, C)``.
        """
        if multi_label:
            yes_and_no = torch.nn.functional.logsigmoid(torch.stack([logits, -logits], dim=-2))
            pooled = self._pool_classes(yes_and_no)
            return pooled[..., 0] - pooled[..., 1]
        return self._pool_classes(logits.log_softmax(dim=-2)).log_softmax(dim=-1)

    def _pool_classes(self, logs: Tensor) -> Tensor:
        return self.pool(logs)


class MeanProbability(Combination):
    """Arithmetic mean: of the attention weights, and of the class probabilities. The default.

    A position counts if any member looks at it. As in Graziani et al., iMIMIC 2022; reconstructed for Haab et al.,
    XKDD 2022, https://arxiv.org/abs/2207.13018.
    """

    def pool(self, logs: Tensor) -> Tensor:
        """``ln mean_k p_k``."""
        return logs.logsumexp(dim=-1) - math.log(logs.shape[-1])


class GeometricMean(Combination):
    """Normalised geometric mean: of the attention weights, and of the class probabilities.

    A position counts if all members look at it; a weight or a probability below 1.2e-7 counts as 1.2e-7. For several
    labels per example, the mean of each label's logits.
    """

    def pool(self, logs: Tensor) -> Tensor:
        """``mean_k ln p_k``."""
        return logs.clamp(min=math.log(FLOOR)).mean(dim=-1)


class MeanLogit(Combination):
    """Mean log-odds: of each attention weight, and of each class probability, normalised to a distribution afterwards.

    Like the geometric mean where weights are small, but a member that is nearly sure of one position counts for more.
    With two classes, or several labels per example, its output is that of the geometric mean. Weights and probabilities
    count as at least 1.2e-7 and at most 1 less that.
    """

    def pool(self, logs: Tensor) -> Tensor:
        """``ln sigmoid( mean_k ln(p_k / (1 - p_k)) )``."""
        kept = logs.clamp(min=math.log(FLOOR), max=math.log1p(-FLOOR))
        odds = kept - torch.log(-torch.expm1(kept))
        return torch.nn.functional.logsigmoid(odds.mean(dim=-1))


class MeanRank(Combination):
    """Attention in proportion to the mean rank of a position, the least attended one having rank 1; ties share ranks.

    Sharp members become a nearly even attention: only its order means something. The output is the mean of the class
    probabilities, because ranks of classes say nothing about how sure a member is.
    """

    def pool(self, logs: Tensor) -> Tensor:
        """``ln mean_k rank_k``."""
        members_last = logs.transpose(-1, -2).contiguous()
        ordered = members_last.sort(dim=-1).values
        below = torch.searchsorted(ordered, members_last)
        up_to = torch.searchsorted(ordered, members_last, right=True)
        return ((below + up_to + 1) / 2).mean(dim=-2).to(logs).log()

    def attention(self, log_weights: Tensor) -> Tensor:
        """Ranks among the positions that some member can attend."""
        nobody = (log_weights <= NEVER).all(dim=-1)
        # Padding ranks below everything else, and must not lift it.
        ranks = self.pool(log_weights.masked_fill(nobody[..., None], -torch.inf)).exp()
        return (ranks - nobody.sum(dim=-1, keepdim=True)).clamp(min=FLOOR).log()

    def _pool_classes(self, logs: Tensor) -> Tensor:
        return MeanProbability().pool(logs)


#: By the name that the command line takes.
COMBINATIONS: Registry[type[Combination]] = Registry(
    "combination",
    "combinations",
    {"mean": MeanProbability, "geometric": GeometricMean, "logit": MeanLogit, "rank": MeanRank},
)


def get_combination(name: str) -> Combination:
    """The combination of a name.

    Raises:
        InputError: There is none of that name.
    """
    return COMBINATIONS[name]()
