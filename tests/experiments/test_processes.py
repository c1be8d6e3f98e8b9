"""Real processes, by gloo: neither figures nor files depend on their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.ddp_run import CASES

ROOT = Path(__file__).parents[2]
NAMES = ("agreement", "permutation", "adversarial", "counterfactual")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By the number of processes, where they wrote."""
    found = {}
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for world in (1, 2, 3):
        found[world] = tmp_path_factory.mktemp(f"world{world}")
        command = [sys.executable, "-m", "tests.experiments.ddp_run", str(world), str(found[world])]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_the_same_on_any_number_of_processes(folders: dict[int, Path], case: str) -> None:
    expected = json.loads((folders[1] / "figures-0.json").read_text())[case]
    assert expected["test/explanation/agreement/examples"] == (CASES[case][1] or CASES[case][0])
    assert {f"test/explanation/{name}/examples" for name in NAMES} <= expected.keys()
    for world in (2, 3):
        for rank in range(world):
            found = json.loads((folders[world] / f"figures-{rank}.json").read_text())[case]
            assert found.keys() == expected.keys()
            assert found == pytest.approx(expected, abs=1e-6), f"rank {rank} of {world}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_the_files_hold_every_example_once(folders: dict[int, Path], case: str, name: str) -> None:
    def read(world: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folders[world] / case / f"explanation/test/{name}.json").read_text())
        return found

    expected = read(1)
    indices = [row["index"] for row in expected["rows"]]
    assert indices == sorted(set(indices))
    for world in (2, 3):
        found = read(world)
        assert [row["index"] for row in found["rows"]] == indices
        for row, same in zip(found["rows"], expected["rows"], strict=True):
            assert row == pytest.approx(same, abs=1e-5)
        assert {key: value for key, value in found.items() if key not in ("rows", "summary", "by_predicted_class")} == {
            key: value for key, value in expected.items() if key not in ("rows", "summary", "by_predicted_class")
        }
