"""How different can attention be while the output stays the same? `adversarial`, `AdversarialCallback`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from typing_extensions import override

from lightning_attn.experiments import figures
from lightning_attn.experiments.base import ExperimentCallback, by_outputs, describe
from lightning_attn.experiments.record import ExperimentRecord, Summary, mean, median, share, undefined
from lightning_attn.metrics.adversarial import Adversarial, AdversarialSolver, EdgeSolver
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure

_MOST = math.log(2)
#: Shares of the largest possible divergence.
_MARKS = {"quarter": 0.25, "half": 0.5, "three_quarters": 0.75}


def adversarial(
    network: AttentionNetwork, batch: Batch, *, solver: AdversarialSolver | None = None, max_tokens: int = 16384
) -> Adversarial:
    """Search the attention of each example that differs most from the learned one and gives the same output.

    Args:
        network: Built network.
        batch: B examples.
        solver: How to search; None means ``EdgeSolver()``. ``PublishedSolver()`` is the published search.
        max_tokens: Positions, padding included, of the texts read and of the candidates held at a time.

    Raises:
        InputError: ``max_tokens`` is below 1.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.2.
    """
    search = solver or EdgeSolver()
    return by_outputs(lambda output, part: search.solve(network, output, part, max_tokens), network, batch, max_tokens)


class AdversarialRecord(ExperimentRecord):
    """Largest divergence of attention that gives the same output, of each example and of all."""

    name = "adversarial"
    title = "Other attention that gives the same output"
    headlines: ClassVar[tuple[str, ...]] = ("mean_max_jsd", "above_half")
    words: ClassVar[Mapping[str, str]] = {
        "mean_max_jsd": "mean of the largest divergences (JSD, nats)",
        "median_max_jsd": "median of the largest divergences",
        **{f"above_{name}": f"share above {mark:g} ln 2" for name, mark in _MARKS.items()},
    }

    def summary(self) -> Summary:
        """Mean and median divergence, shares above fractions of ln 2, and how many examples have none."""
        jsd = self.values["jsd"]
        shares: Summary = {f"above_{name}": share(jsd, jsd > mark * _MOST) for name, mark in _MARKS.items()}
        return {"mean_max_jsd": mean(jsd), "median_max_jsd": median(jsd), **shares, "undefined": undefined(jsd)}

    def figures(self) -> dict[str, Figure]:
        """``adversarial``: its distribution, and against the largest weight, as figures 7 and 8 of Jain and Wallace."""
        summary = self.summary()
        if summary["mean_max_jsd"] is None:
            note = ""
        else:
            note = f"mean {summary['mean_max_jsd']:.3f}; above half of ln 2: {summary['above_half']:.0%}"
        label = "largest divergence (JSD, nats)"
        with figures.canvas(self, 2, width=5.6) as (figure, (left, right)):
            figures.histogram(left, self, "jsd", label, (0, _MOST), "All examples", note)
            figures.against_largest_weight(right, self, "jsd", label, _MOST)
            right.set_title("By the largest attention weight of the text\n(at most ln 2 = 0.693)")
            figures.legend(figure, self, "mean", "median")
        return {self.name: figure}


class AdversarialCallback(ExperimentCallback[AdversarialRecord]):
    """Searches, for each example, the attention farthest from the learned one that gives the same output.

    Logs, under ``test/explanation/adversarial/``, ``mean_max_jsd`` and ``median_max_jsd`` (Jensen-Shannon divergence in
    nats, at most ln 2; high: quite other attention gives the same output), ``above_quarter``, ``above_half`` and
    ``above_three_quarters`` (share of examples above that part of ln 2) and ``undefined`` (examples with fewer than two
    positions).

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.2.

    Args:
        solver: How to search; None means ``EdgeSolver()``. ``PublishedSolver()`` searches as published, slowly.
        **settings: Of :class:`ExperimentCallback`; ``seed`` is of the sample, a solver has its own.

    Raises:
        InputError: A number is below 1, or a split unknown.
    """

    record = AdversarialRecord

    def __init__(self, solver: AdversarialSolver | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.solver = solver or EdgeSolver()

    @property
    @override
    def settings(self) -> dict[str, Any]:
        return {"solver": describe(self.solver)}

    @override
    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        result = adversarial(network, batch, solver=self.solver, max_tokens=self.max_tokens)
        return {"jsd": result.jsd, "tvd": result.change}
