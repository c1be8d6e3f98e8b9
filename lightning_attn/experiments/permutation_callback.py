"""Does the output depend on which token got which weight? `PermutationCallback`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from lightning_attn.callbacks.sampled import Split
from lightning_attn.experiments import figures
from lightning_attn.experiments.base import ExperimentCallback
from lightning_attn.experiments.permutation import permutation
from lightning_attn.experiments.record import ExperimentRecord, Summary, mean, median, undefined
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure


class PermutationRecord(ExperimentRecord):
    """Median change of the output under permuted attention, of each example and of all."""

    name = "permutation"
    title = "Change of the output when the attention is permuted"
    headlines: ClassVar[tuple[str, ...]] = ("median_tvd", "mean_tvd")
    words: ClassVar[Mapping[str, str]] = {
        "median_tvd": "median change of the output (TVD)",
        "mean_tvd": "mean change of the output (TVD)",
    }

    def summary(self) -> Summary:
        """Median and mean over the examples of their median change, and how many have none."""
        change = self.values["tvd"]
        return {"median_tvd": median(change), "mean_tvd": mean(change), "undefined": undefined(change)}

    def figures(self) -> dict[str, Figure]:
        """``permutation``: its distribution, and against the largest weight, as figure 6 of Jain and Wallace."""
        found = self.summary()
        note = "" if found["median_tvd"] is None else f"median {found['median_tvd']:.3f}, mean {found['mean_tvd']:.3f}"
        label = "median change of the output (TVD)"
        with figures.canvas(self, 2, width=5.6) as (figure, (left, right)):
            figures.histogram(left, self, "tvd", label, (0, 1), "All examples", note)
            figures.against_largest_weight(right, self, "tvd", label, 1.0)
            right.set_title("By the largest attention weight\nof the text")
            figures.legend(figure, self, "mean", "median")
        return {self.name: figure}


class PermutationCallback(ExperimentCallback[PermutationRecord]):
    """Permutes the attention of each example many times and sees how much the output moves.

    Logs, under ``test/explanation/permutation/``, ``median_tvd`` and ``mean_tvd`` of the examples' median changes
    (total variation distance, in [0, 1]; near 0 it does not matter which token got which weight) and ``undefined``
    (examples with fewer than two positions).

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.1.

    Args:
        permutations: Of each example, at least 1.
        every_n_epochs: See :class:`ExperimentCallback`.
        max_examples: See :class:`ExperimentCallback`.
        splits: See :class:`ExperimentCallback`.
        max_tokens: See :class:`ExperimentCallback`.
        seed: Of the sample and of the permutations.

    Raises:
        InputError: A number is below 1, or a split unknown.
    """

    record = PermutationRecord

    def __init__(
        self,
        permutations: int = 100,
        every_n_epochs: int = 1,
        max_examples: int | None = 512,
        splits: Sequence[Split] = ("test",),
        max_tokens: int = 16384,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, splits, max_tokens, seed)
        self._at_least_one(permutations=permutations)
        self.permutations = permutations

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`ExperimentRecord`."""
        return {"permutations": self.permutations}

    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`ExperimentCallback.measured`."""
        found = permutation(network, batch, permutations=self.permutations, seed=self.seed, max_tokens=self.max_tokens)
        return {"tvd": found.change}
