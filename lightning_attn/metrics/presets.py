"""Same names, different quantities: how several publications measure what removing tokens does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.erasure import explained, log_ratios
from lightning_attn.ops.registry import Registry
from lightning_attn.perturbation.budget import Budget, FlooredFractions, Fractions, Steps, WholeSteps
from lightning_attn.perturbation.perturbations import Delete, Pad, Perturbation
from lightning_attn.perturbation.sweep import output_change
from lightning_attn.perturbation.variants import ranks
from lightning_attn.types import Batch

Ranking = Literal["signed", "absolute", "positive_only", "spares_last"]
Change = Literal["signed_drop", "absolute_drop", "output_change"]


@dataclass(frozen=True)
class Preset:
    """Everything on which comprehensiveness, sufficiency, AOPC and log-odds depend besides network, text and scores.

    The defaults are ours. ``dataclasses.replace(PRESETS["attcat"], perturbation=Delete())`` makes another one.

    Attributes:
        explained: Whose probability is watched through all perturbations of a text: the class ``predicted`` for the
            whole text, the ``gold`` class, or the class of this number, from 0.
        perturbation: What happens to removed tokens.
        ranking: Which tokens a budget takes, ties going to the earlier position: the best-ranked by ``signed`` or by
            ``absolute`` scores; ``positive_only``, as ``signed``, but a budget stays unspent rather than take a token
            whose score is not positive; ``spares_last``, as ``signed``, but what ranks last of all positions is never
            taken (special positions rank along, with a score of 0 in an attribution: where all others are positive,
            one of them ranks last and nothing is spared).
        budget: How many, for comprehensiveness and sufficiency.
        curve: How many, for AOPC and log-odds.
        change: The effect of a removal, for all but log-odds: ``signed_drop``, ``p_c(x) - p_c(x')`` in [-1, 1];
            ``absolute_drop``, its absolute value; ``output_change``, the mean absolute change over all classes.
        leave_one_out: The same for removing one token, which the scores are correlated with (``kendall_loo``).
        averaging: The effects of ``every`` budget are averaged, or only of ``distinct`` ones, which take something, and
            something else than the budget before: an attribution with few positive tokens is then averaged over fewer
            and smaller budgets than others.
        least_tokens: Shorter texts are left out and counted as skipped; 0 keeps all.
        count_special: Whether special tokens count towards ``least_tokens``.
        chunks: The mean over texts is that of the means of so many parts of the data set, in its order; 1: of all.
        true_odds: Whether log-odds are those of odds; else, as usual, of probabilities.
        trapezoid: Whether the area below precision and recall (``plausibility/auprc``) is that of trapezoids.

    Raises:
        InputError: There is no such choice.
    """

    explained: Literal["predicted", "gold"] | int = "predicted"
    perturbation: Perturbation = field(default_factory=Delete)
    ranking: Ranking = "signed"
    budget: Budget = field(default_factory=Fractions)
    curve: Budget = field(default_factory=Steps)
    change: Change = "signed_drop"
    leave_one_out: Change = "output_change"
    averaging: Literal["every", "distinct"] = "every"
    least_tokens: int = 2
    count_special: bool = False
    chunks: int = 1
    true_odds: bool = False
    trapezoid: bool = False

    def __post_init__(self) -> None:
        choices = {
            "ranking": get_args(Ranking),
            "change": get_args(Change),
            "leave_one_out": get_args(Change),
            "averaging": ("every", "distinct"),
        }
        if isinstance(self.explained, str):
            choices["explained"] = ("predicted", "gold")
        for name, values in choices.items():
            if getattr(self, name) not in values:
                raise InputError(f"A preset has no {name} {getattr(self, name)!r}; choose from {', '.join(values)}.")

    def describe(self) -> dict[str, Any]:
        """The choices as plain values, to be noted beside what was measured."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {
            name: value if isinstance(value, (bool, int, str)) else {type(value).__name__: vars(value)}
            for name, value in values.items()
        }

    def target(self, logits: Tensor, batch: Batch) -> Tensor:
        """The explained class of each text, shape ``(B,)``, int64.

        Args:
            logits: Of the unperturbed texts, shape ``(B, C)``.
            batch: The texts.

        Raises:
            InputError: There is no such class, or the gold class is asked for and a text may have several.
        """
        if self.explained == "predicted":
            return logits.argmax(dim=-1)
        if self.explained == "gold":
            if batch.target.dim() > 1:
                raise InputError(
                    "A preset that explains the gold class needs texts of one class each, not multi-label."
                )
            return batch.target
        if not 0 <= self.explained < logits.shape[-1]:
            raise InputError(f"There is no class {self.explained} to explain: there are {logits.shape[-1]}, from 0.")
        return torch.full_like(batch.index, self.explained)

    def taken(self, scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
        """What each budget takes, shape ``(B, K, L)``, bool; never special positions or padding.

        Args:
            scores: An attribution, shape ``(B, L)``.
            batch: The texts.
            counts: Positions of each budget, shape ``(B, K)``.
        """
        rank = ranks(scores.abs() if self.ranking == "absolute" else scores, batch)
        best = (rank[:, None] < counts[..., None]) & batch.inner[:, None]
        if self.ranking == "positive_only":
            return best & (scores > 0)[:, None]
        if self.ranking == "spares_last":
            order = scores.masked_fill(~batch.valid, -torch.inf).argsort(dim=-1, descending=True, stable=True)
            last = order.gather(1, (batch.valid.sum(dim=1, keepdim=True) - 1).clamp(min=0))
            return best & (torch.arange(scores.shape[1], device=scores.device) != last)[:, None]
        return best

    def mean(self, effects: Tensor, taken: Tensor, empty: float) -> Tensor:
        """The effects of the budgets as one number per text, shape ``(B,)``.

        Args:
            effects: Of each budget, shape ``(B, K)``.
            taken: What each budget takes, shape ``(B, K, L)``, bool.
            empty: The number of a text of which no budget takes anything, if ``averaging`` is ``distinct``.
        """
        if self.averaging == "every":
            return effects.mean(dim=-1)
        sizes = taken.sum(dim=-1)  # a larger budget takes what a smaller one does
        before = torch.nn.functional.pad(sizes, (1, 0))[:, :-1]
        counted = (sizes > 0) & (sizes != before)
        count = counted.sum(dim=-1)
        total = effects.masked_fill(~counted, 0.0).sum(dim=-1)
        return torch.where(count > 0, total / count.clamp(min=1), empty)

    def measures(self, batch: Batch) -> Tensor:
        """Which texts are long enough to be measured, shape ``(B,)``, bool."""
        counted = batch.valid if self.count_special else batch.inner
        return counted.sum(dim=-1) >= self.least_tokens


def change(kind: Change, full: Tensor, perturbed: Tensor, target: Tensor) -> Tensor:
    """The effect of each of V perturbations, shape ``(B, V)``.

    Args:
        kind: See :class:`Preset`.
        full: Class probabilities of the whole texts, shape ``(B, C)``.
        perturbed: Those of V perturbations of each, shape ``(B, V, C)``.
        target: The explained class, shape ``(B,)``.
    """
    if kind == "output_change":
        return output_change(full, perturbed)
    drop = full.gather(-1, target[:, None]) - explained(perturbed, target)
    return drop.abs() if kind == "absolute_drop" else drop


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
        budget, curve = (preset.taken(scores, batch, grid.counts(batch)) for grid in (preset.budget, preset.curve))
        self.taken = {"comprehensiveness": budget, "sufficiency": budget, "aopc": curve, "log_odds": curve}

    def request(self, measure: str) -> Tensor:
        """What each variant keeps, shape ``(B, K, L)``, bool, see :func:`lightning_attn.perturbation.sweep.sweep`.

        Args:
            measure: ``comprehensiveness``, ``sufficiency``, ``aopc`` or ``log_odds``.
        """
        taken = self.taken[measure]
        return taken | ~self.batch.inner[:, None] if measure == "sufficiency" else ~taken

    def value(self, measure: str, full: Tensor, perturbed: Tensor, target: Tensor) -> Tensor:
        """One number per text, shape ``(B,)``, NaN for texts that are left out.

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
            effects = change(preset.change, full, perturbed, target)
        # With nothing kept nothing of the prediction is left; with nothing removed it is what it was.
        empty = 1.0 if measure == "sufficiency" else 0.0
        value = preset.mean(effects, self.taken[measure], empty)
        return value.masked_fill(~preset.measures(self.batch), torch.nan)


_TENTHS = FlooredFractions(tuple(step / 10 for step in range(1, 11)))
_ATTCAT = Preset(
    explained="gold",
    perturbation=Pad(),
    budget=WholeSteps(),
    curve=WholeSteps(),
    change="absolute_drop",
    least_tokens=10,
    count_special=True,
)

#: Values of different presets cannot be compared with each other. What a source does not have (ferret no log-odds,
#: Mask-LRP no sufficiency) is measured with its choices all the same.
PRESETS: Registry[Preset] = Registry(
    "preset",
    "presets",
    {
        "ours": Preset(),
        # DeYoung et al., ACL 2020, https://aclanthology.org/2020.acl-main.408, and its code, which averages over the
        # thresholds (the paper divides by one more); there the perturbed predictions come from the user.
        "eraser": Preset(curve=Fractions(), least_tokens=0, trapezoid=True),
        # Attanasio et al., EACL 2023 (https://arxiv.org/abs/2208.01575), version 0.5.0 of its code; there the class is
        # the user's (explained=NUMBER), and perturbed ids are decoded and tokenised again.
        "ferret": Preset(
            ranking="positive_only",
            budget=_TENTHS,
            curve=_TENTHS,
            leave_one_out="signed_drop",
            averaging="distinct",
            least_tokens=0,
            trapezoid=True,
        ),
        # Code of Mask-LRP, Findings of EACL 2024, https://arxiv.org/abs/2401.09972; the mean is that of the means of
        # its processes, ten by default.
        "mask_lrp": Preset(
            explained="gold",
            perturbation=Pad(),
            ranking="spares_last",
            budget=WholeSteps(),
            curve=WholeSteps(),
            least_tokens=20,
            count_special=True,
            chunks=10,
        ),
        # Code of AttCAT, Qiang et al., NeurIPS 2022: it reports [PAD] and deletion.
        "attcat": _ATTCAT,
        "attcat_delete": dataclasses.replace(_ATTCAT, perturbation=Delete()),
        # Code of Contrast-CAT, https://github.com/ku-air/Contrast-CAT.
        "contrast_cat": Preset(budget=WholeSteps(), curve=WholeSteps(), least_tokens=10, count_special=True),
        # Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186: leave-one-out, of all classes.
        "jain_wallace": Preset(change="output_change", least_tokens=0),
    },
)


def get_preset(preset: str | Preset) -> Preset:
    """A preset by its name; one that is no name is returned as it is.

    Raises:
        InputError: There is none of that name.
    """
    return preset if isinstance(preset, Preset) else PRESETS[preset]
