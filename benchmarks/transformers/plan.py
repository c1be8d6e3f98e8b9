"""Which cells there are, part by part, and of what size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cells import Cell
from benchmarks.transformers.methods import METHODS

TUNING, HEADS, CLASSIFIER = "fine-tuning", "attention heads", "self-attention"
#: What a fine-tuned model depends on, and what its attention heads do beside that.
TRAINED = ("task", "length", "train", "val", "epochs", "batch", "rate")
SELECTED = (*TRAINED, "sentences", "selections")
#: Arms of part 2, by variant of Mask-LRP: chosen attention heads, a random choice of as many, and all of them.
VARIANTS = ("released", "clean")
ALL_HEADS = {"released": "Mask-LRP released, all heads", "clean": "TransAtt"}
#: Criteria of attention heads; see :func:`lightning_attn.attribution.heads.important_heads`.
SELECTIONS: dict[str, dict[str, Any]] = {
    "important": {"margin": 0.1, "direction": "to_head", "share": 0.8, "ignore_special": False},
    "wider": {"margin": 0.05, "direction": "either", "share": 0.5, "ignore_special": True},
}
MITIGATIONS = ("none", "random pretraining", "weighting", "both", "mixed", "mixed + penalty")


def masked(variant: str, selection: str = "important") -> str:
    """Arm of Mask-LRP with chosen attention heads."""
    return f"Mask-LRP {variant}" if selection == "important" else f"Mask-LRP {variant}, {selection} heads"


def drawn(variant: str, selection: str = "important") -> str:
    """Arm of Mask-LRP with as many attention heads in each layer, drawn at random."""
    return f"Mask-LRP {variant}, random for {selection}"


@dataclass(frozen=True)
class Plan:
    """An evidence of some size.

    Attributes:
        sizes: Of every cell, by task; ``""`` holds what is common. ``train`` and ``val`` are texts, None for all;
            ``explained`` the test texts of a method, ``chunk`` how many of them at once.
        methods: Arms of part 1.
        draws: Random choices of attention heads.
        mitigated: The task of part 3, and what differs there.
        mitigations: Arms of part 3.
        seeds: In part 3.
    """

    sizes: Mapping[str, Mapping[str, Any]]
    mitigated: tuple[str, Mapping[str, Any]]
    methods: Sequence[str] = tuple(METHODS)
    draws: int = 3
    mitigations: Sequence[str] = MITIGATIONS
    seeds: int = 3
    selections: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: SELECTIONS)

    @property
    def tasks(self) -> list[str]:
        """Data that are fine-tuned on."""
        return [task for task in self.sizes if task]

    def cell(self, task: str, arm: str, seed: int = 0, kind: str = "method") -> Cell:
        """One row of a table under one seed."""
        sizes = {**self.sizes[""], **self.sizes[task]}
        selections = {name: dict(criteria) for name, criteria in self.selections.items()}
        return {"task": task, "kind": kind, "arm": arm, "seed": seed, "selections": selections, **sizes}

    def stages(self, number: int) -> list[list[Cell]]:
        """The cells of a part, in lots of which each needs the one before.

        Parts: 0 fine-tuning and the choice of attention heads, 1 every method, 2 the controls of the choice, 3
        mitigations.
        """
        if number == 0:
            return [
                [self.cell(task, TUNING, kind=TUNING) for task in self.tasks],
                [self.cell(task, HEADS, kind=HEADS) for task in self.tasks],
            ]
        return [[cell for task in self.tasks for cell in self.table(number, task)]]

    def table(self, number: int, task: str) -> list[Cell]:
        """The cells of a task in part 1, 2 or 3."""
        if number == 1:
            return [self.cell(task, name) for name in self.methods]
        if number == 2:
            return self._controls(task)
        if task != self.mitigated[0]:
            return []
        return [
            {**self.cell(task, arm, seed, CLASSIFIER), **self.mitigated[1]}
            for seed in range(self.seeds)
            for arm in self.mitigations
        ]

    def _controls(self, task: str) -> list[Cell]:
        cells = [self.cell(task, ALL_HEADS["released"])]
        for selection in self.selections:
            for variant in VARIANTS:
                if masked(variant, selection) not in self.methods:
                    cells.append(self.cell(task, masked(variant, selection)))
                cells += [self.cell(task, drawn(variant, selection), seed) for seed in range(self.draws)]
        return cells


COMMON = {"epochs": 2, "rate": 1e-4, "batch": 32, "val": None, "steps": 20, "samples": 10, "sentences": 6000}
#: For MiniLM-L6 on two cores, a thread per cell: 700 to 1,000 tokens per second in training, 4,700 in reading.
FULL = Plan(
    {
        "": COMMON,
        "SST": {"length": 128, "train": None, "explained": 120, "chunk": 32},
        "movies": {"length": 256, "train": None, "epochs": 3, "batch": 8, "explained": 24, "chunk": 8},
        "NLI": {"length": 128, "train": 7000, "val": 1000, "explained": 100, "chunk": 32},
        "QA": {"length": 384, "train": None, "epochs": 3, "batch": 16, "explained": 48, "chunk": 8},
    },
    ("SST", {"train": 2500, "epochs": 3}),
)
TINY = {"length": 64, "train": None, "val": None, "epochs": 2, "rate": 3e-3, "batch": 16, "explained": 8, "chunk": 8}
QUICK = Plan(
    {"": {**TINY, "steps": 3, "samples": 2, "sentences": 60}, "SST": {}, "movies": {}, "NLI": {}, "QA": {}},
    ("SST", {"epochs": 2, "train": 96}),
    methods=("random", "rollout", "TransAtt", masked("released"), masked("clean"), "gradient x input"),
    draws=2,
    mitigations=("none", "both", "mixed + penalty"),
    seeds=2,
    selections={"important": {"margin": 0.0, "direction": "either", "share": 0.1, "ignore_special": True}},
)
