"""Which cells there are, in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cells import Cell
from benchmarks.selection.arms import ARMS, NONE, PAIR, PUBLISHED, REAL_X, SHARES, WARM, WARM_FREE, WHOLE_SHARES
from benchmarks.selection.baselines import ATTENTION, BASELINES, EVIDENCE
from benchmarks.selection.data import SETTINGS

#: Those that are compared on every data set: the plain network, both warm starts, what was published, and ours.
MAIN = (NONE, WARM, WARM_FREE, PUBLISHED, PAIR, REAL_X, SHARES, WHOLE_SHARES)
#: Those whose silent failures are counted.
COUNTED = (NONE, WARM_FREE, PAIR, SHARES)


@dataclass(frozen=True)
class Plan:
    """An evidence of some size.

    Attributes:
        tuning: Data on which every arm is run, and on whose validation split the default distribution is chosen.
        others: Data on which only :data:`MAIN` is run.
        seeds: Of each arm.
        counted: Data on which silent failures are counted, and over how many seeds.
    """

    tuning: Sequence[str] = ("MNIST pairs", "SST", "digits")
    others: Sequence[str] = ("SST+Wiki", "GECO", "IMDB", "movies")
    seeds: int = 5
    counted: tuple[str, int] = ("MNIST pairs", 20)

    @property
    def data(self) -> list[str]:
        """All data sets."""
        return [*self.tuning, *self.others]

    def arms(self, data: str) -> list[str]:
        """Those that are run on these data, in the order of the tables."""
        return [arm for arm in ARMS if data in self.tuning or arm in MAIN]

    def cells(self) -> list[Cell]:
        """Baselines; the main arms, seed after seed; silent failures; the other arms."""
        cells = [cell_of(data, arm, 0) for data in self.data for arm in BASELINES if fits(arm, data)]
        for data in self.data:
            cells += [cell_of(data, arm, seed) for seed in range(self.seeds) for arm in MAIN]
        data, count = self.counted
        cells += [cell_of(data, arm, seed) for seed in range(self.seeds, count) for arm in COUNTED]
        for data in self.tuning:
            rest = [arm for arm in self.arms(data) if arm not in MAIN]
            cells += [cell_of(data, arm, seed) for seed in range(self.seeds) for arm in rest]
        return cells


def fits(baseline: str, data: str) -> bool:
    """Black boxes of pictures have no attention to speak of, and some data no evidence."""
    setting = SETTINGS[data]
    return not (baseline == ATTENTION and setting.pictures) and not (baseline == EVIDENCE and not setting.evidence)


def cell_of(data: str, arm: str, seed: int) -> Cell:
    """Training of an arm, or a baseline, on data under a seed."""
    return {"data": data, "arm": arm, "seed": seed}


FULL = Plan()
QUICK = Plan(tuning=("few digits",), others=(), seeds=2, counted=("few digits", 3))
