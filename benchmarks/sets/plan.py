"""Which cells there are: fixed ones, and those that depend on what the search finds."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cells import Cell, key
from benchmarks.sets.training import EPOCHS, MODALITIES, SIZES, TASKS
from lightning_attn.visualization.silent_failures import Thresholds, Training, ensemble_of

Results = dict[str, dict[str, Any]]
HEADS = ("linear", "mlp")
STRICT = Thresholds(good=0.95, bad=0.70)
SILENT_SHARE = 0.1  # of all trainings: what makes a setting strictly silent
SEARCH_SEED, FRESH_SEEDS = 100, (201, 202, 203)
ARMS = ("none", "random_pretraining", "instance_weighting", "both")

#: What is tried, one thing after another: noise, veto, poison, background that goes along with the class, heads, rates.
SEARCH: tuple[dict[str, Any], ...] = (
    *({"task": "presence", "setting": {"background": strength}} for strength in (0.2, 0.3, 0.4, 0.5, 0.6)),
    *({"task": "count", "setting": {"background": strength}} for strength in (0.2, 0.4)),
    *({"task": "majority", "setting": {"background": strength}} for strength in (0.2, 0.4)),
    *({"task": "veto", "setting": {"background": strength}} for strength in (0.2, 0.3, 0.4)),
    *({"task": "xor", "setting": {"background": strength}} for strength in (0.2, 0.3, 0.4)),
    *({"task": "four bags", "setting": {"background": strength}} for strength in (0.3, 0.5)),
    *({"task": "conjunction", "setting": {"background": strength}} for strength in (0.1, 0.2, 0.3)),
    {"task": "presence", "setting": {"label_noise": 0.3}},
    {"task": "veto", "setting": {"label_noise": 0.2}},
    {"task": "presence", "setting": {"poison": 1.0}},
    {"task": "veto", "setting": {"poison": 1.0}},
    {"task": "conjunction", "setting": {"poison": 1.0}},
    {"task": "conjunction", "setting": {"witness_rate": 0.4}},
    {"task": "conjunction", "setting": {"size": 20}, "head": "mlp"},
    {"task": "conjunction", "setting": {"train_size": 1200}, "head": "mlp"},
)


def _cell(part: str, trainings: int, **more: Any) -> Cell:
    common = {"part": part, "modality": "digits", "head": "linear", "data_seed": 0, "setting": {}, "arm": "none"}
    return {**common, "trainings": trainings, "epochs": EPOCHS, **more}


def first_cells() -> list[Cell]:
    """What does not depend on what is found."""
    tasks = [
        _cell("tasks", 30, task=task, modality=modality, head=head)
        for head in HEADS
        for modality in MODALITIES
        for task in TASKS
    ]
    search = [_cell("search", 10, data_seed=SEARCH_SEED, **setting) for setting in SEARCH]
    return tasks + search


def later_cells(results: Results) -> list[Cell]:
    """What was found, on fresh bags; and the mitigations on the first of it and on the conjunction."""
    chosen = found(results)
    confirmed = [
        _cell("confirmed", 30, **{name: cell[name] for name in ("task", "setting", "head")}, data_seed=seed)
        for cell in chosen
        for seed in FRESH_SEEDS
    ]
    where: list[dict[str, Any]] = [{"task": "conjunction"}]
    where += [{"task": cell["task"], "setting": cell["setting"], "head": cell["head"]} for cell in chosen[:1]]
    mitigated = [_cell("mitigations", 10, arm=arm, data_seed=1, **place) for place in where for arm in ARMS]
    return confirmed + mitigated


def silent_share(result: dict[str, Any]) -> float:
    """Share of all trainings that are silent failures in the strict sense."""
    pairs = zip(result["bag"], result["attention"], strict=True)
    return float(np.mean([bag >= STRICT.good and attention <= STRICT.bad for bag, attention in pairs]))


def found(results: Results) -> list[Cell]:
    """Of each task the strictly silent setting of the search whose attention is best: the least obvious one."""
    silent: dict[str, Cell] = {}
    for cell in first_cells():
        if cell["part"] != "search" or silent_share(results[key(cell)]) < SILENT_SHARE:
            continue
        best = silent.get(cell["task"])
        if best is None or np.mean(results[key(best)]["attention"]) < np.mean(results[key(cell)]["attention"]):
            silent[cell["task"]] = cell
    return list(silent.values())


def trainings_of(result: dict[str, Any], sizes: tuple[int, ...] = SIZES) -> list[Training]:
    """The trainings of a cell, and the ensembles drawn from them."""
    several = []
    for size in sizes:
        figures = result if size == 1 else result["ensembles"]["mean"][str(size)]
        group = "single" if size == 1 else ensemble_of(size)
        columns = (figures[name] for name in ("bag", "attention", "key_mass", "effective"))
        several += [
            Training("", bag, attention, mass, result["key_rate"], effective, group)
            for bag, attention, mass, effective in zip(*columns, strict=True)
        ]
    return several


def ensemble_figures(result: dict[str, Any], figure: str = "attention") -> list[list[float]]:
    """For each of `SIZES`, a figure of the ensembles drawn from a cell's trainings; of size 1, the trainings."""
    ensembles = [result["ensembles"]["mean"][str(size)][figure] for size in SIZES[1:]]
    return [result[figure], *ensembles]
