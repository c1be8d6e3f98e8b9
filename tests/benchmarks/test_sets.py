"""The benchmark of sets: its cells, what it finds and combines, and its page."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cells import key
from benchmarks.sets import training
from benchmarks.sets.figures import draw_ensembles, draw_scatter
from benchmarks.sets.page import report
from benchmarks.sets.plan import (
    STRICT,
    ensemble_figures,
    first_cells,
    found,
    later_cells,
    silent_share,
    trainings_of,
)
from benchmarks.together import Together, started, whole
from lightning_attn.data.bags import CorrelatedBackground, NormalSize, Poison
from lightning_attn.networks import AttentionEnsemble
from lightning_attn.networks.combinations import COMBINATIONS, get_combination

CELL: dict[str, Any] = {
    "task": "conjunction",
    "modality": "gaussian",
    "head": "linear",
    "data_seed": 3,
    "setting": {},
    "arm": "none",
    "trainings": 3,
}


def made_up(seed: int, silent: bool = False) -> dict[str, Any]:
    """What a cell gives, with figures that are drawn."""
    generator = np.random.default_rng(seed)

    def figures(count: int) -> dict[str, list[float]]:
        low, high = (0.3, 0.6) if silent else (0.75, 1.0)
        return {
            "bag": generator.uniform(0.96, 0.99, count).tolist(),
            "attention": generator.uniform(low, high, count).tolist(),
            **{name: generator.uniform(0, 1, count).tolist() for name in ("key_mass", "worse_letter")},
            "effective": generator.uniform(1, 9, count).tolist(),
        }

    sizes = {str(size): figures(30) for size in (2, 5, 10)}
    disagreement = dict.fromkeys(("jsd", "rank_correlation", "area", "random", "oracle", "gain"), 0.25)
    return {
        **figures(10),
        "val": generator.uniform(0.9, 1.0, 10).tolist(),
        "untrained": 0.5,
        "key_rate": 0.2,
        "ensembles": dict.fromkeys(COMBINATIONS, sizes),
        "disagreement": disagreement,
    }


def results_of(*silent: tuple[str, float]) -> dict[str, dict[str, Any]]:
    """Results of all cells; those of the search that are named (task, strength of the background) fail silently."""

    def fails(cell: dict[str, Any]) -> bool:
        return cell["part"] == "search" and (cell["task"], cell["setting"].get("background")) in silent

    results = {key(cell): made_up(number, fails(cell)) for number, cell in enumerate(first_cells())}
    later = {key(cell): made_up(1000 + number) for number, cell in enumerate(later_cells(results))}
    return results | later


def test_every_task_has_three_modalities_and_digits_among_them() -> None:
    cells = [cell for cell in first_cells() if cell["part"] == "tasks"]
    assert {cell["trainings"] for cell in cells} == {30}
    assert len({cell["task"] for cell in cells}) == 7
    for task in training.TASKS:
        assert {cell["modality"] for cell in cells if cell["task"] == task} >= {"digits", "gaussian", "expression"}
    assert len({key(cell) for cell in first_cells()}) == len(first_cells())


def test_of_each_task_the_least_obvious_silent_setting_goes_on() -> None:
    results = results_of(("presence", 0.4), ("presence", 0.6), ("xor", 0.3))
    by_strength = {cell["setting"]["background"]: cell for cell in first_cells() if _is(cell, "presence")}
    results[key(by_strength[0.4])]["attention"] = [0.69] * 10
    results[key(by_strength[0.6])]["attention"] = [0.30] * 10
    chosen = found(results)
    assert [(cell["task"], cell["setting"]["background"]) for cell in chosen] == [("presence", 0.4), ("xor", 0.3)]
    confirmed = [cell for cell in later_cells(results) if cell["part"] == "confirmed"]
    assert len(confirmed) == 2 * 3
    searched = {cell["data_seed"] for cell in first_cells()}
    assert searched.isdisjoint({cell["data_seed"] for cell in confirmed})


def _is(cell: dict[str, Any], task: str) -> bool:
    return cell["part"] == "search" and cell["task"] == task and "background" in cell["setting"]


def test_silent_is_good_and_wrong_at_once() -> None:
    result = {"bag": [0.95, 0.99, 0.94, 0.99], "attention": [0.70, 0.71, 0.1, 0.2]}
    assert silent_share(result) == 0.5


@pytest.mark.parametrize("silent", [(), (("presence", 0.5), ("veto", 0.3))])
def test_the_page_and_its_figures_are_made_of_all_cells(silent: tuple[tuple[str, float], ...], tmp_path: Path) -> None:
    results = results_of(*silent)
    (tmp_path / "discussion.md").write_text("## What it shows")
    page = report(results, "COMMAND", tmp_path / "discussion.md")
    assert "Made by `COMMAND`" in page
    assert "## What it shows" in page
    assert page.count("| four bags |") >= 6
    assert ("What was found" in page) == bool(silent)
    assert ("No setting was strictly silent" in page) != bool(silent)
    one = results[key(first_cells()[0])]
    trainings = trainings_of(one)
    assert [len([1 for item in trainings if item.group == group]) for group in ("single", "ensemble of 5")] == [10, 30]
    assert len(draw_scatter({"a": trainings}, STRICT).axes) == 4
    lines = draw_ensembles({"a": {"b": ensemble_figures(one)}}, columns=1).axes[0].lines
    assert lines[0].get_ydata()[0] == pytest.approx(np.mean(one["attention"]))


def test_settings_reach_the_bags() -> None:
    setting = {"background": 0.4, "poison": 0.5, "label_noise": 0.1, "witness_rate": 0.3, "size": 20, "train_size": 90}
    data = training.data_of({**CELL, "setting": setting})
    assert [type(one) for one in data.confounders] == [CorrelatedBackground, Poison]
    assert (data.label_noise, data.witness_rate, data.sizes["train"]) == (0.1, 0.3, 90)
    assert isinstance(data.size, NormalSize)
    assert data.size.mean == 20
    assert training.data_of({**CELL, "setting": {"distance": 2.0}}).modality.distance == 2.0


@pytest.mark.parametrize("name", COMBINATIONS)
def test_members_are_combined_as_an_ensemble_does(name: str) -> None:
    data = training.data_of({**CELL, "setting": {"train_size": 8}})
    together = Together.from_networks(started(lambda: training.network_of(CELL), data, range(3)))
    for value in together.parameters.values():
        value.mul_(3)
    test = whole(data, "test")
    logits, logs = training._combined(name, *training._outputs(together, test), test)
    ensemble = AttentionEnsemble([together.network_of(number) for number in range(3)], get_combination(name))
    expected = ensemble(test)
    torch.testing.assert_close(logits[0].softmax(-1).float(), expected.logits.softmax(-1), atol=1e-5, rtol=1e-4)
    weights = logs[0].exp().masked_fill(~test.inner, 0.0).float()
    torch.testing.assert_close(weights, expected.attention, atol=1e-5, rtol=1e-4)


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """What a cell sets for the process it runs in, threads, warnings and the loudness of Lightning, is put back."""
    threads, lightning = torch.get_num_threads(), logging.getLogger("pytorch_lightning")
    level = lightning.level
    with warnings.catch_warnings():
        yield
    lightning.setLevel(level)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("arm", ["none", "both"])
def test_a_cell_is_computed(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "EPOCHS", 2)
    monkeypatch.setattr(training, "PRETRAINING_EPOCHS", 1)
    result = training.compute({**CELL, "arm": arm, "setting": {"train_size": 40}})
    assert len(result["bag"]) == len(result["attention"]) == len(result["val"]) == 3
    assert len(set(result["attention"])) == 3  # the seed matters
    assert len(result["ensembles"]["mean"]["2"]["attention"]) == training.DRAWS
    assert "5" not in result["ensembles"]["mean"]
    assert 190 <= result["bags_with_keys"] <= 200  # but for bags that hold nothing but keys
    assert result["disagreement"]["oracle"] <= result["disagreement"]["area"]
