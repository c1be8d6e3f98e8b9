"""Whether weights P(y) / P(y | attention) can be trusted: calibration, positivity, how many examples count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.utilities.prints import rank_zero_warn


class CalibrationError(Metric):
    """Expected calibration error: mean gap between how often an outcome comes and how probable it was said to be.

    Every outcome of every example is one statement. Statements go into bins of equal width; the gaps of the bins are
    weighted by their numbers. 0 is calibrated; in [0, 1].

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015, here over all outcomes and not the likeliest alone.

    Args:
        bins: Number of bins.
        **kwargs: See ``torchmetrics.Metric``.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    said: Tensor
    came: Tensor
    count: Tensor

    def __init__(self, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        for name in ("said", "came", "count"):
            self.add_state(name, torch.zeros(bins), dist_reduce_fx="sum")

    def update(self, probability: Tensor, outcome: Tensor) -> None:
        """Add statements: probabilities in [0, 1], and 1 where the outcome came, else 0; of the same shape."""
        bin_of = (probability.flatten() * self.bins).long().clamp(max=self.bins - 1)
        self.said.index_add_(0, bin_of, probability.flatten().to(self.said))
        self.came.index_add_(0, bin_of, outcome.flatten().to(self.came))
        self.count.index_add_(0, bin_of, torch.ones_like(bin_of, dtype=self.count.dtype))

    def compute(self) -> Tensor:
        """The error, a scalar; NaN before anything was added."""
        return (self.came - self.said).abs().sum() / self.count.sum()


class RawWeightMean(MeanMetric):
    """Mean of ``P(y) / P(y | attention)`` before it is divided by its class mean; warns below 0.7.

    With a right estimator it is the share of pairs of label and attention, drawn apart, that come together at all: 1 if
    positivity holds, less where some attention comes with some labels only, and no weights can bring the missing pairs
    back. An estimator that has fitted too closely lowers it as well.
    """

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        mean: Tensor = super().compute()
        if mean < 0.7:
            rank_zero_warn(
                f"Positivity fails: weights P(y) / P(y | attention) have a mean of {mean:.2f} where 1 is right: some "
                "attention comes with some labels only, and no weights can make the two independent. Pretrain with "
                "random attention first (configs/mitigations/both.yaml), or choose a smaller classifier."
            )
        return mean


class EffectiveSampleSize(Metric):
    """``(sum w)^2 / (n sum w^2)``: the share of n weighted examples that count, in (0, 1]; 1 when all weights agree.

    Source: Kish, Survey Sampling, 1965.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, weight: Tensor) -> None:
        """Add weights of any shape."""
        self.total += weight.sum()
        self.squares += weight.square().sum()
        self.count += weight.numel()

    def compute(self) -> Tensor:
        """The share, a scalar; NaN before any weight was added. Warns below 0.3."""
        share = self.total.square() / (self.count * self.squares)
        if share < 0.3:
            rank_zero_warn(
                f"Instance weighting rests on {share:.0%} of the examples: the attention gives the label away so "
                "clearly that weights cannot undo it. Raise `floor`, or pretrain with random attention first "
                "(configs/mitigations/both.yaml)."
            )
        return share
