"""A way to measure what removing tokens does, as one of several publications does it: `Preset`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_attn.metrics.functional.erasure import explained, log_ratios
from lightning_attn.metrics.presets.averaging import Averaging, EveryBudget
from lightning_attn.metrics.presets.change import Change, OutputChange, SignedDrop
from lightning_attn.metrics.presets.explained import ExplainedClass, Predicted
from lightning_attn.metrics.presets.ranking import Ranking, Signed
from lightning_attn.metrics.presets.texts import InnerLength, TextFilter
from lightning_attn.perturbation.budget import Budget, Fractions, Steps
from lightning_attn.perturbation.sweep import Delete, Perturbation
from lightning_attn.types import Batch


@dataclass(frozen=True)
class Preset:
    """Everything on which comprehensiveness, sufficiency, AOPC and log-odds depend besides network, text and scores.

    The defaults are ours. ``dataclasses.replace(PRESETS["attcat"], perturbation=Delete())`` makes another one.

    Attributes:
        explained: Whose probability is watched.
        perturbation: What happens to removed tokens.
        ranking: Which tokens a budget takes.
        budget: How many, for comprehensiveness and sufficiency.
        curve: How many, for AOPC and log-odds.
        change: The effect of a removal, for all but log-odds.
        leave_one_out: The effect of removing one token, which the scores are correlated with (``kendall_loo``).
        averaging: How the effects of the budgets become one number a text.
        texts: Which texts are measured.
        chunks: The mean over texts is that of the means of so many parts of the data set, in its order; 1: of all.
        true_odds: Whether log-odds are those of odds; else, as usual, of probabilities.
        trapezoid: Whether the area below precision and recall (``plausibility/auprc``) is that of trapezoids.
    """

    explained: ExplainedClass = field(default_factory=Predicted)
    perturbation: Perturbation = field(default_factory=Delete)
    ranking: Ranking = field(default_factory=Signed)
    budget: Budget = field(default_factory=Fractions)
    curve: Budget = field(default_factory=Steps)
    change: Change = field(default_factory=SignedDrop)
    leave_one_out: Change = field(default_factory=OutputChange)
    averaging: Averaging = field(default_factory=EveryBudget)
    texts: TextFilter = field(default_factory=InnerLength)
    chunks: int = 1
    true_odds: bool = False
    trapezoid: bool = False

    def describe(self) -> dict[str, Any]:
        """The choices as plain values, to be noted beside what was measured."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {
            name: value if isinstance(value, (bool, int)) else {type(value).__name__: vars(value)}
            for name, value in values.items()
        }


class Erasure:
    """What a preset removes from a batch under one ranking, and what it makes of the answers.

    Args:
        preset: How to measure.
        batch: The texts.
        scores: An attribution, shape ``(B, L)``.
    """

    def __init__(self, preset: Preset, batch: Batch, scores: Tensor) -> None:
        self.preset = preset
        self.batch = batch
        self.taken = {
            name: preset.ranking.taken(scores, batch, budget.counts(batch))
            for name, budget in (("budget", preset.budget), ("curve", preset.curve))
        }

    def request(self, measure: str) -> Tensor:
        """What each variant keeps, shape ``(B, K, L)``, bool, see :func:`lightning_attn.perturbation.sweep.sweep`.

        Args:
            measure: ``comprehensiveness``, ``sufficiency``, ``aopc`` or ``log_odds``.
        """
        taken = self.taken[_GRID[measure]]
        return taken | ~self.batch.inner[:, None] if measure == "sufficiency" else ~taken

    def value(self, measure: str, full: Tensor, perturbed: Tensor, target: Tensor) -> Tensor:
        """One number a text, shape ``(B,)``, NaN for texts that are left out.

        Args:
            measure: See :meth:`request`.
            full: Class probabilities of the whole texts, shape ``(B, C)``.
            perturbed: Those of the variants, shape ``(B, K, C)``.
            target: The explained class, shape ``(B,)``.
        """
        preset = self.preset
        if measure == "log_odds":
            whole = full.gather(-1, target[:, None]).squeeze(-1)
            effects = log_ratios(whole, explained(perturbed, target), preset.true_odds)
        else:
            effects = preset.change.of(full, perturbed, target)
        # With nothing kept nothing of the prediction is left; with nothing removed it is what it was.
        empty = 1.0 if measure == "sufficiency" else 0.0
        value = preset.averaging.of(effects, self.taken[_GRID[measure]], empty)
        return value.masked_fill(~preset.texts.keeps(self.batch), float("nan"))


_GRID = {"comprehensiveness": "budget", "sufficiency": "budget", "aopc": "curve", "log_odds": "curve"}
