"""Faithfulness metrics as torchmetrics classes; the mathematics is in ``metrics/functional``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_attn.metrics.adversarial import AdversarialSolver
from lightning_attn.metrics.base import PerExampleMean
from lightning_attn.metrics.functional.adversarial import adversarial_jsd
from lightning_attn.metrics.functional.erasure import aopc, comprehensiveness, log_odds, log_odds_floors, sufficiency
from lightning_attn.metrics.functional.kendall import kendall_tau, significant
from lightning_attn.metrics.functional.permutation import permutation_tvd
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import AttentionOutput, Batch


class KendallTau(PerExampleMean):
    """Mean tau-b of two attributions; see :func:`kendall_tau`. Undefined where one of them is constant.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186
    """

    higher_is_better = True

    def update(self, x: Tensor, y: Tensor, batch: Batch) -> None:
        """Add a batch: two attributions ``(B, L)``, compared over ``batch.inner``."""
        self.add(kendall_tau(x, y, batch.inner).tau, batch.index)


class KendallSignificant(PerExampleMean):
    """Share of the examples whose tau-b has a two-sided p-value of at most ``level``.

    It grows with the length of the texts, so it cannot be compared between data sets.

    Args:
        level: In (0, 1).
        **kwargs: See ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, level: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.level = level

    def update(self, x: Tensor, y: Tensor, batch: Batch) -> None:
        """Add a batch: two attributions ``(B, L)``, compared over ``batch.inner``."""
        self.add(significant(kendall_tau(x, y, batch.inner).p_value, self.level), batch.index)


class Comprehensiveness(PerExampleMean):
    """Mean of :func:`comprehensiveness` over distinct examples."""

    higher_is_better = True

    def update(self, p_full: Tensor, p_without: Tensor, index: Tensor) -> None:
        """Add a batch: probabilities ``(B,)`` and ``(B, K)`` of the explained class; NaN to skip an example."""
        self.add(comprehensiveness(p_full, p_without), index)


class Sufficiency(PerExampleMean):
    """Mean of :func:`sufficiency` over distinct examples."""

    higher_is_better = False

    def update(self, p_full: Tensor, p_only: Tensor, index: Tensor) -> None:
        """Add a batch: probabilities ``(B,)`` and ``(B, K)`` of the explained class; NaN to skip an example."""
        self.add(sufficiency(p_full, p_only), index)


class AOPC(PerExampleMean):
    """Mean of :func:`aopc` over distinct examples."""

    higher_is_better = True

    def update(self, p_full: Tensor, p_without: Tensor, index: Tensor) -> None:
        """Add a batch: probabilities ``(B,)`` and ``(B, K)`` of the explained class; NaN to skip an example."""
        self.add(aopc(p_full, p_without), index)


class LogOdds(PerExampleMean):
    """Mean of :func:`log_odds` over distinct examples.

    Args:
        true_odds: See :func:`log_odds`.
        **kwargs: See ``torchmetrics.Metric``.

    Attributes:
        floors: Probabilities that were floored, in the examples of the mean; set by ``compute``.
    """

    higher_is_better = False
    columns = 2

    def __init__(self, true_odds: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.true_odds = true_odds
        self.floors = 0

    def update(self, p_full: Tensor, p_without: Tensor, index: Tensor) -> None:
        """Add a batch: probabilities ``(B,)`` and ``(B, K)`` of the explained class; NaN to skip an example."""
        value = log_odds(p_full, p_without, self.true_odds)
        self.add(torch.stack([value, log_odds_floors(p_without)], dim=-1), index)

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        means = self.means()
        self.floors = round(float(means[1]) * self.count) if self.count else 0
        return means[0].to(self.device, torch.float32)


class PermutationTVD(PerExampleMean):
    """Mean of :func:`permutation_tvd` over distinct examples.

    Args:
        permutations: Permutations of each example.
        seed: They depend on it and on ``Batch.index``.
        **kwargs: See ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, permutations: int = 100, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.permutations = permutations
        self.seed = seed

    def update(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> None:
        """Add a batch and what the network computed for it."""
        self.add(permutation_tvd(network, output, batch, self.permutations, self.seed), batch.index)


class AdversarialJSD(PerExampleMean):
    """Mean of :func:`adversarial_jsd` over distinct examples.

    Args:
        solver: How to search; None means ``EdgeSolver()``.
        **kwargs: See ``torchmetrics.Metric``.
    """

    higher_is_better = False

    def __init__(self, solver: AdversarialSolver | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.solver = solver

    def update(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> None:
        """Add a batch and what the network computed for it."""
        self.add(adversarial_jsd(network, output, batch, self.solver), batch.index)
