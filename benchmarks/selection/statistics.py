"""Figures of arms over seeds: means, paired differences, and how often a training fails without a sign of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.cells import Results, key
from benchmarks.selection.plan import cell_of

FEWEST_SEEDS = 5  # for a verdict
FIDELITY, MARGIN = 0.9, 0.1


@dataclass(frozen=True)
class Compared:
    """A paired difference over seeds.

    Attributes:
        mean: Of the differences.
        half: Half the width of its 95 % Student interval; NaN under two seeds.
        p: Of the paired t-test, two-sided, after Holm over the arms of the table; NaN under two seeds.
        seeds: How many pairs.
    """

    mean: float
    half: float
    p: float
    seeds: int

    def __str__(self) -> str:
        text = f"{self.mean:+.3f} ± {self.half:.3f}" if self.seeds > 1 else f"{self.mean:+.3f}"
        return f"**{text}**" if self.seeds >= FEWEST_SEEDS and self.p < 0.05 else text


@dataclass(frozen=True)
class Failures:
    """How often selections of an arm explain nothing.

    Attributes:
        seeds: How many trainings.
        silent: Fidelity of at least .9 and post-hoc accuracy within .1 of random selections: nothing warns.
        noticed: Fidelity below .9 and post-hoc accuracy no higher than that.
        low: Lower end of the 95 % interval of the rate of silent ones, after Clopper and Pearson.
        high: Upper end.
    """

    seeds: int
    silent: int
    noticed: int
    low: float
    high: float


def figures(results: Results, data: str, arm: str, name: str, split: str = "test") -> dict[int, float]:
    """A figure by seed, of the finished cells that have it."""
    values: dict[int, float] = {}
    for seed in range(100):
        value = results.get(key(cell_of(data, arm, seed)), {}).get(f"{split}/{name}")
        if value is not None:
            values[seed] = float(value)
    return values


def compared(results: Results, data: str, arms: Sequence[str], reference: str, name: str) -> dict[str, Compared]:
    """Differences of arms to a reference over the seeds that both have; Holm's correction is over these arms."""
    against = figures(results, data, reference, name)
    found: dict[str, Compared] = {}
    for arm in arms:
        mine = figures(results, data, arm, name)
        seeds = sorted(set(mine) & set(against))
        if arm == reference or not seeds:
            continue
        difference = np.array([mine[seed] - against[seed] for seed in seeds])
        half = p = float("nan")
        if len(seeds) > 1:
            error = difference.std(ddof=1) / len(seeds) ** 0.5
            half = float(error * stats.t.ppf(0.975, len(seeds) - 1))
            p = float(2 * stats.t.sf(abs(difference.mean()) / max(error, 1e-12), len(seeds) - 1))
        found[arm] = Compared(float(difference.mean()), half, p, len(seeds))
    corrected = holm({arm: one.p for arm, one in found.items()})
    return {arm: Compared(one.mean, one.half, corrected[arm], one.seeds) for arm, one in found.items()}


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 1979); NaN takes no part."""
    known = sorted((value, name) for name, value in p.items() if not np.isnan(value))
    corrected, largest = dict(p), 0.0
    for place, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - place)))
        corrected[name] = largest
    return corrected


def failures(results: Results, data: str, arm: str) -> Failures:
    """Of all finished seeds."""
    fidelity, post_hoc, floor = (
        figures(results, data, arm, name) for name in ("fidelity", "post_hoc_accuracy", "random_accuracy")
    )
    silent = noticed = 0
    for seed, value in fidelity.items():
        fails = post_hoc[seed] <= floor[seed] + MARGIN
        silent += fails and value >= FIDELITY
        noticed += fails and value < FIDELITY
    low, high = stats.binomtest(silent, len(fidelity)).proportion_ci(0.95, "exact") if fidelity else (0.0, 1.0)
    return Failures(len(fidelity), silent, noticed, float(low), float(high))
