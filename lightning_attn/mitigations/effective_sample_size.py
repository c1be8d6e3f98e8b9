"""How many examples a set of weights is worth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.prints import rank_zero_warn


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
