"""Does the members' disagreement foretell wrong attention? `DisagreementCallback`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_attn.callbacks.sampled import network_of
from lightning_attn.errors import InputError
from lightning_attn.experiments import figures
from lightning_attn.experiments.base import ExperimentCallback
from lightning_attn.experiments.record import ExperimentRecord, Summary, mean, undefined
from lightning_attn.metrics.disagreement import disagreement
from lightning_attn.metrics.functional.disagreement import RiskCoverage, risk_coverage
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.ensemble import AttentionEnsemble
from lightning_attn.types import Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class DisagreementRecord(ExperimentRecord):
    """Disagreement of the members on each example, and the error of the ensemble's attention where it is known."""

    name = "disagreement"
    title = "Disagreement of the members' attention"
    headlines: ClassVar[tuple[str, ...]] = ("jsd", "rank_correlation")
    words: ClassVar[Mapping[str, str]] = {
        "jsd": "mean divergence of two members (nats, at most 0.693)",
        "rank_correlation": "mean rank correlation of two members",
        "top_overlap": "mean overlap of two members' top positions",
        "largest_deviation": "largest standard deviation of a weight",
        "attention_auroc": "AUROC of the ensemble's attention",
        "risk_coverage/area": "area under risk and coverage",
        "risk_coverage/random": "the same in random order",
        "risk_coverage/oracle": "the same in the best order",
        "risk_coverage/gain": "gain over random order (1: the best)",
    }

    @cached_property
    def curve(self) -> RiskCoverage:
        """Mean error of the attention, 1 less its AUROC, among the examples on which members disagree least."""
        error = 1 - torch.from_numpy(self.values["attention_auroc"])
        return risk_coverage(torch.from_numpy(self.values["jsd"]), error)

    def summary(self) -> Summary:
        """Means over examples; the risk-coverage figures where examples have evidence."""
        means: Summary = {
            name: mean(self.values[name]) for name in ("jsd", "rank_correlation", "top_overlap", "largest_deviation")
        }
        means["rank_correlation/undefined"] = undefined(self.values["rank_correlation"])
        quality = mean(self.values["attention_auroc"])
        if quality is None:
            return means
        areas = {name: getattr(self.curve, name) for name in ("area", "random", "oracle", "gain")}
        summary: Summary = {f"risk_coverage/{name}": None if np.isnan(area) else area for name, area in areas.items()}
        summary["attention_auroc/undefined"] = undefined(self.values["attention_auroc"])
        return {**means, "attention_auroc": quality, **summary}

    def figures(self) -> dict[str, Figure]:
        """``disagreement``: risk and coverage, and every example; without evidence, how disagreement is distributed."""
        summary = self.summary()
        with figures.canvas(self, 2, width=5.6) as (figure, (left, right)):
            if "attention_auroc" in summary:
                self._draw_curve(left)
                self._draw_examples(right)
            else:
                jsd, correlation = (
                    f"mean {summary[name]:.3f}" if summary[name] is not None else "" for name in self.headlines
                )
                label = "mean divergence of two members (nats)"
                figures.histogram(left, self, "jsd", label, (0, float(np.log(2))), "Divergence", jsd)
                label = "mean rank correlation of two members"
                figures.histogram(right, self, "rank_correlation", label, (-1, 1), "Rank correlation", correlation)
                figures.legend(figure, self, "mean")
        return {self.name: figure}

    def _draw_curve(self, axes: Axes) -> None:
        curve = self.curve
        coverage = curve.coverage.numpy()
        best = risk_coverage(error := 1 - torch.from_numpy(self.values["attention_auroc"]), error)
        axes.plot(coverage, curve.risk.numpy(), color="#0072b2", label=f"by disagreement, area {curve.area:.3f}")
        axes.axhline(curve.random, color="#555555", ls="--", label=f"in random order, {curve.random:.3f}")
        axes.plot(coverage, best.risk.numpy(), color="#009e73", ls=":", label=f"in the best order, {curve.oracle:.3f}")
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel="share of the examples kept, those agreed on first")
        axes.set_ylabel("mean error of their attention (1 - AUROC)")
        axes.set_title(f"Risk and coverage\ngain over random order {curve.gain:.2f}")
        axes.legend(loc="best", fontsize=9)

    def _draw_examples(self, axes: Axes) -> None:
        axes.plot(self.values["jsd"], self.values["attention_auroc"], "o", ms=3.5, alpha=0.5, color="#d55e00")
        axes.set(xlabel="mean divergence of two members (nats)", ylabel="AUROC of the ensemble's attention")
        axes.set(xlim=(0, None), ylim=(-0.02, 1.02))
        axes.set_title("Every example with evidence")


class DisagreementCallback(ExperimentCallback[DisagreementRecord]):
    """Measures how much the attention of an ensemble's members differs, and whether that tells where it is wrong.

    Logs, under ``test/explanation/disagreement/``, means over examples of ``jsd`` (Jensen-Shannon divergence of two
    members, in [0, ln 2]), ``rank_correlation`` (Spearman, in [-1, 1]), ``top_overlap`` (of the ``top_n`` best-ranked
    positions, in [0, 1]) and ``largest_deviation`` (of a weight over the members, in [0, 1/2]). Where the data have
    evidence, also ``attention_auroc``, and of the curve of coverage against the attention's error, 1 - AUROC, as those
    examples are left out on which the members diverge most: ``risk_coverage/area``, the same in ``random`` order and in
    the best one, ``oracle``, and ``gain``, 1 where disagreement orders examples as their errors do and 0 where it says
    nothing.

    Measures proposed for silent failures of attention on sets (Haab et al., XKDD 2022, https://arxiv.org/abs/2207.13018,
    propose the ensemble; these figures of it are ours).

    Args:
        top_n: Positions whose overlap counts, at least 1.
        max_examples: Size of the sample, at least 1, drawn at random once; None measures every example.
        **settings: Of :class:`ExperimentCallback`.

    Raises:
        InputError: A number is below 1, or a split unknown.
    """

    record = DisagreementRecord

    def __init__(self, top_n: int = 3, max_examples: int | None = None, **settings: Any) -> None:
        super().__init__(max_examples=max_examples, **settings)
        self._at_least_one(top_n=top_n)
        self.top_n = top_n

    @property
    @override
    def settings(self) -> dict[str, Any]:
        return {"top_n": self.top_n}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there are members to disagree.

        Raises:
            InputError: There are not, or the Trainer has two of these callbacks.
        """
        super().setup(trainer, pl_module, stage)
        _ensemble(network_of(pl_module))

    @override
    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        return vars(disagreement(_ensemble(network), batch, self.top_n, self.max_tokens))


def _ensemble(network: AttentionNetwork) -> AttentionEnsemble:
    if not isinstance(network, AttentionEnsemble):
        raise InputError(
            f"DisagreementCallback measures an AttentionEnsemble, not a {type(network).__name__}: make one with "
            "`lightning ensemble`, or leave the callback out."
        )
    return network
