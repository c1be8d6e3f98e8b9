"""The goal, computed from paired differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.paired import Difference, metric_of

ACCURACY_LOSS = 0.01
#: What the goal may be reached on; named before any result was seen.
PERTURBATION = ("b/comprehensiveness_gain", "b/sufficiency_gain", "b/flip_fraction_gain")
SHORTCUT = ("leaked_bits", "encoding_gain")

#: From two arms and a metric, their difference; None if one of them is missing.
Compare = Callable[[str, str, str], Difference | None]


@dataclass(frozen=True)
class Goal:
    """Which parts of the goal hold on one data set.

    Attributes:
        perturbation: Perturbation metrics of version B on which ours is better than every rival.
        shortcut: Shortcut metrics on which it is.
        auprc: Difference to no mitigation; None without evidence.
        accuracy: Difference to no mitigation.
        shown: By metric and rival, the differences looked at.
    """

    perturbation: tuple[str, ...]
    shortcut: tuple[str, ...]
    auprc: Difference | None
    accuracy: Difference | None
    shown: dict[tuple[str, str], Difference | None]

    @property
    def conditions(self) -> dict[str, bool | None]:
        """By name, whether it holds; None where it cannot be asked."""
        return {
            "perturbation metric (B)": bool(self.perturbation),
            "shortcut metric": bool(self.shortcut),
            "AUPRC": None if self.auprc is None else self.auprc.verdict(1) == "better",
            "accuracy": None if self.accuracy is None else self.accuracy.mean >= -ACCURACY_LOSS,
        }

    @property
    def reached(self) -> bool:
        """Whether every condition holds that can be asked."""
        return self.accuracy is not None and all(held is not False for held in self.conditions.values())


def goal(compare: Compare, ours: str, rivals: Sequence[str]) -> Goal:
    """Whether ours beats every rival on a perturbation and a shortcut metric, nothing on AUPRC, and is as accurate."""
    shown = {(name, rival): compare(ours, rival, name) for name in (*PERTURBATION, *SHORTCUT) for rival in rivals}

    def beaten(name: str) -> bool:
        found = [shown[name, rival] for rival in rivals]
        return all(one is not None and one.verdict(metric_of(name).direction) == "better" for one in found)

    return Goal(
        tuple(name for name in PERTURBATION if beaten(name)),
        tuple(name for name in SHORTCUT if beaten(name)),
        compare(ours, "none", "auprc"),
        compare(ours, "none", "accuracy"),
        shown,
    )
