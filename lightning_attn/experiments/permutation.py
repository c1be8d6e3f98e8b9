"""Does the output depend on which token got which weight? `permutation`, `PermutationCallback`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from typing_extensions import override

from lightning_attn.experiments import figures
from lightning_attn.experiments.base import ExperimentCallback, by_outputs
from lightning_attn.experiments.record import ExperimentRecord, Summary, mean, median, undefined
from lightning_attn.metrics.functional.alternatives import permutation_tvd
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import AttentionOutput, Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure


@dataclass
class Permutation:
    """What permuting the attention does to each example.

    Attributes:
        change: Median change of the output over the permutations, a total variation distance in [0, 1], shape ``(B,)``;
            NaN where fewer than two positions can be permuted.
        largest: Largest weight on a position that can be permuted, in [0, 1], shape ``(B,)``. The more of the mass
            one token has, the more a permutation should change.
    """

    change: Tensor
    largest: Tensor


def permutation(
    network: AttentionNetwork, batch: Batch, *, permutations: int = 100, seed: int = 0, max_tokens: int = 16384
) -> Permutation:
    """Permute the attention of each example over ``batch.inner`` and see how much the output moves.

    Args:
        network: Built network.
        batch: B examples.
        permutations: Permutations of each example, at least 1.
        seed: They depend on it and on ``batch.index``.
        max_tokens: Positions, padding included, of the texts read and of the permutations held at a time.

    Raises:
        InputError: ``permutations`` or ``max_tokens`` is below 1.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.1.
    """

    def measure(output: AttentionOutput, part: Batch) -> Permutation:
        change = permutation_tvd(network, output, part, permutations, seed, max_tokens)
        return Permutation(change, output.attention.masked_fill(~part.inner, 0.0).amax(dim=-1))

    return by_outputs(measure, network, batch, max_tokens)


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
        middle, average = (self.summary()[name] for name in self.headlines)
        note = "" if middle is None else f"median {middle:.3f}, mean {average:.3f}"
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
        **settings: Of :class:`ExperimentCallback`; ``seed`` is of the permutations too.

    Raises:
        InputError: A number is below 1, or a split unknown.
    """

    record = PermutationRecord

    def __init__(self, permutations: int = 100, **settings: Any) -> None:
        super().__init__(**settings)
        self._at_least_one(permutations=permutations)
        self.permutations = permutations

    @property
    @override
    def settings(self) -> dict[str, Any]:
        return {"permutations": self.permutations}

    @override
    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        settings = {"permutations": self.permutations, "seed": self.seed, "max_tokens": self.max_tokens}
        return {"tvd": permutation(network, batch, **settings).change}
