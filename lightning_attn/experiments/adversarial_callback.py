"""How different can attention be while the output stays the same? `AdversarialCallback`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from lightning_attn.callbacks.sampled import Split
from lightning_attn.experiments import figures
from lightning_attn.experiments.adversarial import AdversarialSolver, EdgeSolver, adversarial
from lightning_attn.experiments.base import ExperimentCallback, described
from lightning_attn.experiments.record import ExperimentRecord, Summary, mean, median, share, undefined
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure

_MOST = math.log(2)
#: Shares of the largest possible divergence.
_MARKS = {"quarter": 0.25, "half": 0.5, "three_quarters": 0.75}


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
        found = self.summary()
        if found["mean_max_jsd"] is None:
            note = ""
        else:
            note = f"mean {found['mean_max_jsd']:.3f}; above half of ln 2: {found['above_half']:.0%}"
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
        every_n_epochs: See :class:`ExperimentCallback`.
        max_examples: See :class:`ExperimentCallback`.
        splits: See :class:`ExperimentCallback`.
        max_tokens: See :class:`ExperimentCallback`.
        seed: Of the sample; a solver has its own.

    Raises:
        InputError: A number is below 1, or a split unknown.
    """

    record = AdversarialRecord

    def __init__(
        self,
        solver: AdversarialSolver | None = None,
        every_n_epochs: int = 1,
        max_examples: int | None = 512,
        splits: Sequence[Split] = ("test",),
        max_tokens: int = 16384,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, splits, max_tokens, seed)
        self.solver = solver or EdgeSolver()

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`ExperimentRecord`."""
        return {"solver": described(self.solver)}

    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`ExperimentCallback.measured`."""
        found = adversarial(network, batch, solver=self.solver, max_tokens=self.max_tokens)
        return {"jsd": found.jsd, "tvd": found.change}
