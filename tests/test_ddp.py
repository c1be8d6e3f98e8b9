"""Real processes, by gloo: neither what is logged nor what is written depends on their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.ddp import BAG_CASES, CASES, Results, launch
from tests.helpers.experiments import NAMES
from tests.helpers.rows import flat

#: What runs by the number of processes; each number is started once.
TASKS = {
    1: ("faithfulness", "experiments", "instances", "shortcut"),
    2: ("faithfulness", "experiments", "shortcut", "fit"),
    3: ("faithfulness", "experiments", "instances", "text_rows", "bag_rows"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By the number of processes, where they write."""
    return {world: tmp_path_factory.mktemp(f"world{world}") for world in TASKS}


@pytest.fixture(scope="module")
def results(folders: dict[int, Path]) -> dict[int, list[dict[str, Results]]]:
    """By the number of processes, what each rank logged."""
    return {world: launch(world, folders[world], *tasks) for world, tasks in TASKS.items()}


def same_on_every_rank(results: Any, task: str, case: str, tolerance: float = 1e-6) -> dict[str, float]:
    """What one process logged, after all others have been compared with it."""
    expected: dict[str, float] = results[1][0][task][case]
    for world in (2, 3):
        for rank, logged in enumerate(results[world]):
            if task in TASKS[world]:
                assert logged[task][case].keys() == expected.keys()
                assert logged[task][case] == pytest.approx(expected, abs=tolerance), f"rank {rank} of {world}"
    return expected


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_the_same_on_any_number_of_processes(results: Any, case: str, stage: str) -> None:
    expected = same_on_every_rank(results, "faithfulness", f"{case} {stage}")
    split = "val" if stage == "validate" else "test"
    assert expected[f"{split}/faithfulness/examples"] == (CASES[case][1] or CASES[case][0])
    assert {f"{split}/loss", f"{split}/auroc", f"{split}/faithfulness/kendall_loo"} <= expected.keys()
    assert (f"{split}/shortcut/leaked_bits" in expected) == (case == "37")


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("case", BAG_CASES)
def test_instance_figures_are_the_same_on_any_number_of_processes(results: Any, case: str, stage: str) -> None:
    expected = same_on_every_rank(results, "instances", f"{case} {stage}")
    split = "val" if stage == "validate" else "test"
    assert f"{split}/instances/pooled_auroc" in expected
    assert (f"{split}/instances_controls/occlusion/auroc" in expected) == (stage == "test")


@pytest.mark.parametrize("case", ["all", "sampled"])
def test_shortcut_figures_are_the_same_on_any_number_of_processes(results: Any, case: str) -> None:
    assert "val/shortcut/encoding_bits" in same_on_every_rank(results, "shortcut", case, tolerance=1e-5)


@pytest.mark.parametrize("case", ["37 sampled", "5", "2"])
def test_figures_of_experiments_are_the_same_on_any_number_of_processes(results: Any, case: str) -> None:
    expected = same_on_every_rank(results, "experiments", case)
    assert expected["test/explanation/agreement/examples"] == (CASES[case][1] or CASES[case][0])
    assert {f"test/explanation/{name}/examples" for name in NAMES} <= expected.keys()


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["37 sampled", "5", "2"])
def test_the_files_hold_every_example_once(folders: dict[int, Path], case: str, name: str) -> None:
    def read(world: int) -> dict[str, Any]:
        place = folders[world] / "experiments" / case / f"explanation/test/{name}.json"
        content: dict[str, Any] = json.loads(place.read_text())
        return content

    expected = read(1)
    indices = [row["index"] for row in expected["rows"]]
    assert indices == sorted(set(indices))
    for world in (2, 3):
        document = read(world)
        assert [row["index"] for row in document["rows"]] == indices
        for row, same in zip(document["rows"], expected["rows"], strict=True):
            assert row == pytest.approx(same, abs=1e-5)
        floats = ("rows", "summary", "by_predicted_class")
        assert {key: value for key, value in document.items() if key not in floats} == {
            key: value for key, value in expected.items() if key not in floats
        }


def test_both_mitigations_train_through_their_phases_on_two_processes(results: Any, folders: dict[int, Path]) -> None:
    first, second = (logged["fit"] for logged in results[2])
    assert first["weights"] == second["weights"]
    assert first["weights"]["epochs"] == 3
    assert first["fit"]["mitigation/phase"] == 1
    assert all(value == value for value in first["fit"].values())
    assert {"val/loss", "val/faithfulness/aopc", "mitigation/effective_sample_size"} <= first["fit"].keys()
    # Ranks other than 0 fail if they try to write.
    assert (folders[2] / "fit" / "attention" / "val.html").read_text().count(">epoch 2: ") == 4


@pytest.mark.parametrize("task", ["text_rows", "bag_rows"])
def test_three_processes_evaluate_each_of_five_rows_once(results: Any, task: str) -> None:
    ranks = [logged[task]["rows"] for logged in results[3]]
    for stage in ("val", "test", "predict") if task == "text_rows" else ("val", "test"):
        assert sorted(row for rank in ranks for row in flat(rank[stage])) == [0, 1, 2, 3, 4]
    # Two batches of texts for three ranks: the third gets an empty one.
    assert task == "bag_rows" or sorted(len(flat(rank["test"])) for rank in ranks) == [0, 2, 3]
    assert len({len(rank["train"]) for rank in ranks}) == 1
    assert {row for rank in ranks for row in flat(rank["train"])} == set(range(10))
