"""Which cells there are, part by part; what an arm's own parameter is and which rivals go on, validation decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.cells import Cell, Results, key
from benchmarks.shortcut.arms import ARMS, CANDIDATE, DISTRIBUTIONS, DROPOUTS, OURS, PUBLISHED, TASC, Setting

TUNING_SEED = 100
MASKS = ("contextual", "masked input", "hard")  # beside local values
ACCURACY_MARGIN = 0.01
ABLATIONS: dict[str, tuple[tuple[str, Setting], ...]] = {
    "distribution of the masks": tuple(
        (arm, {"distribution": name} if name != "softmax normal" else {})
        for arm in ("random pretraining", "mixed")
        for name in DISTRIBUTIONS
    ),
    "freeze or finetune": (
        ("random pretraining", {}),
        *(("random pretraining unfrozen", {"rate": rate} if rate < 1 else {}) for rate in (0.1, 0.3, 1.0)),
    ),
    "cross-fitting": (("weighting", {}), ("weighting", {"fitted": "on itself"})),
    "clipping": (("weighting", {"floor": 0.01}), ("weighting", {}), ("weighting", {"floor": 0.2})),
    "length of pretraining": (("both", {"epochs": 1}), ("both", {}), ("both", {"epochs": 3})),
    "share of mixing": (("mixed", {"share": 0.25}), ("mixed", {}), ("mixed", {"share": 0.75})),
}


@dataclass(frozen=True)
class Plan:
    """An evidence of some size.

    Attributes:
        content_free: Data of part 1.
        main: Data of part 2, with all arms.
        others: Further data of part 3, with the arms that matter.
        places: Data of part 3 on which the mask acts at other places; also those of tuning and ablations.
        sizes: Of every cell, by data; ``""`` holds what is common. ``warmup``, the steps before weights act, is about
            an epoch; 200 where it is not named.
        seeds: In part 1.
        few: Seeds in part 2.
        fewest: Seeds of further data in part 3.
        single: Seeds of other places of the mask, in part 3, and in part 4.
    """

    content_free: str = "SST"
    main: tuple[str, ...] = ("SST", "SST+Wiki")
    others: tuple[str, ...] = ("IMDB", "movies", "patches")
    places: str = "SST+Wiki"
    sizes: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {
            "": {"embedding": 100, "hidden": 64, "epochs": 5, "rate": 1e-3, "batch": 32, "explained": 200, "loo": True},
            "IMDB": {"explained": 100, "epochs": 3, "batch": 64, "rate": 2e-3, "warmup": 110},
            "movies": {"explained": 199, "epochs": 6, "rate": 2e-3, "loo": False, "warmup": 50},
            "patches": {"epochs": 6, "rate": 2e-3},
        }
    )
    seeds: int = 5
    few: int = 3
    fewest: int = 2
    single: int = 1

    def cell(self, data: str, mask: str, arm: str, seed: int, setting: Setting | None = None) -> Cell:
        """One training, its twin and what is measured of them."""
        sizes = {**self.sizes[""], **self.sizes.get(data, {})}
        chosen = dict(setting or {})
        if "epochs" in chosen:  # of pretraining: the scorer needs one of its own where there are fewer
            chosen["epochs"] = min(chosen["epochs"], sizes["epochs"] - 1)
        return {"data": data, "mask": mask, "arm": arm, "setting": chosen, "seed": seed, **sizes}

    def part(self, number: int, results: Results) -> list[Cell]:
        """The cells of a part: 0 tuning, 1 content-free, 2 all arms, 3 further data and places, 4 ablations."""
        return [self._tuning, self._content_free, self._main, self._further, self._ablations][number](results)

    def data_sets(self) -> list[str]:
        """Those for which the goal is looked at."""
        return [*self.main, *self.others]

    def arms(self, data: str, mask: str, results: Results) -> list[str]:
        """Those that are run where the mask acts there on these data."""
        fitting = [name for name, arm in ARMS.items() if arm.fits(mask, data)]
        if mask == "content-free" or (data in self.main and mask == "local"):
            return fitting
        wanted = self.that_matter(results)
        return [name for name in fitting if name in wanted or ARMS[name].hard]

    def _tuning(self, results: Results) -> list[Cell]:
        return [cell for name, arm in ARMS.items() if arm.tuned and arm.fits("local") for cell in self.tries(name)]

    def tries(self, arm: str) -> list[Cell]:
        """An arm with each of its settings, on a seed that is used for nothing else; no test text is looked at."""
        cells = [self.cell(self.places, "local", arm, TUNING_SEED, setting) for setting in tried(arm)]
        return [cell | {"explained": 0} for cell in cells]

    def _content_free(self, results: Results) -> list[Cell]:
        return self.table(self.content_free, "content-free", results)

    def _main(self, results: Results) -> list[Cell]:
        return [cell for data in self.main for cell in self.table(data, "local", results)]

    def _further(self, results: Results) -> list[Cell]:
        cells = [cell for data in self.others for cell in self.table(data, "local", results)]
        return cells + [cell for mask in MASKS for cell in self.table(self.places, mask, results)]

    def _ablations(self, results: Results) -> list[Cell]:
        wanted = [("none", {}), *(line for lines in ABLATIONS.values() for line in lines)]
        return [
            self.cell(self.places, "local", arm, seed, setting)
            for arm, setting in wanted
            for seed in range(self.single)
        ]

    def seeds_of(self, data: str, mask: str) -> int:
        """How many seeds a table has: more of them where more is decided by it."""
        if mask == "content-free":
            return self.seeds
        if mask != "local":
            return self.single
        return self.few if data in self.main else self.fewest

    def table(self, data: str, mask: str, results: Results) -> list[Cell]:
        """All arms of a table under all seeds; seed after seed, so that a table can be read before it is complete."""
        arms = self.arms(data, mask, results)
        chosen = {arm: self.setting(arm, results) for arm in arms}
        seeds = range(self.seeds_of(data, mask))
        return [self.cell(data, mask, arm, seed, chosen[arm]) for seed in seeds for arm in arms]

    def setting(self, arm: str, results: Results) -> Setting:
        """What tuning chose for an arm; its default until tuning is complete."""
        if ARMS[arm].tuned is None:
            return {}
        cells = self.tries(arm)
        if any(key(cell) not in results for cell in cells):
            return {}
        return dict(best([[cell] for cell in cells], results)[0]["setting"])

    def best_arm(self, arms: Iterable[str], results: Results, data: Sequence[str] | None = None) -> str | None:
        """The arm that is best on validation, on average over data and seeds of part 2; None if none was run."""
        lots = []
        for arm in arms:
            cells = [
                self.cell(name, "local", arm, seed, self.setting(arm, results))
                for name in data or self.main
                for seed in range(self.few)
            ]
            lots.append([cell for cell in cells if key(cell) in results])
        lots = [lot for lot in lots if lot]
        return str(best(lots, results)[0]["arm"]) if lots else None

    def rivals(self, results: Results, data: Sequence[str] | None = None) -> dict[str, str]:
        """Those that ours has to beat: the best attention dropout, the best TaSc, and the best rival of all."""
        peers = [name for name, arm in ARMS.items() if arm.rival and not arm.hard]
        kinds = {"attention dropout": DROPOUTS, "TaSc": TASC, "rival": peers}
        return {kind: self.best_arm(names, results, data) or names[0] for kind, names in kinds.items()}

    def that_matter(self, results: Results) -> list[str]:
        """The arms of the further data, each once."""
        return list(dict.fromkeys(["none", *self.rivals(results).values(), PUBLISHED, OURS, CANDIDATE]))


def tried(arm: str) -> list[Setting]:
    """The settings that tuning tries; the middle one is the default, an empty setting."""
    tuned = ARMS[arm].tuned
    assert tuned is not None
    name, values = tuned
    return [{} if value == values[len(values) // 2] else {name: value} for value in values]


def validation_figure(result: Mapping[str, Any]) -> float:
    """What is chosen by: comprehensiveness less sufficiency of version B, each less random rankings; more is better."""
    figures = result["figures"]
    return float(figures["val/comprehensiveness_gain"] - figures["val/sufficiency_gain"])


def best(lots: Sequence[Sequence[Cell]], results: Results) -> Sequence[Cell]:
    """The cells with the best validation figure among those that are accurate enough, lot by lot on average.

    Accurate enough is a mean validation accuracy of at most a point below the highest.
    """
    accuracy = [np.mean([results[key(cell)]["figures"]["val/accuracy"] for cell in lot]) for lot in lots]
    figure = [np.mean([validation_figure(results[key(cell)]) for cell in lot]) for lot in lots]
    enough = [number for number in range(len(lots)) if accuracy[number] >= max(accuracy) - ACCURACY_MARGIN]
    return lots[max(enough, key=lambda number: figure[number])]


SMALL = {
    "embedding": 16,
    "hidden": 8,
    "epochs": 8,
    "rate": 1e-2,
    "batch": 16,
    "explained": 20,
    "loo": True,
    "warmup": 20,
}
FULL = Plan()
FEWER = {"reviews+noise": {"epochs": 4}, "digits": {"epochs": 4}}
QUICK = Plan(
    "reviews", ("reviews+noise",), ("digits",), "reviews+noise", {"": SMALL, **FEWER}, seeds=2, few=2, fewest=1
)
