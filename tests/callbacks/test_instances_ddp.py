"""Real processes, by gloo: instance figures do not depend on their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ddp_bags import CASES

ROOT = Path(__file__).parents[2]
Figures = dict[str, dict[str, float]]


def launch(world: int, folder: Path) -> list[Figures]:
    """What each rank found."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.ddp_bags", str(world), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Figures]]:
    folder = tmp_path_factory.mktemp("ddp")
    return {world: launch(world, folder) for world in (1, 3)}


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("case", CASES)
def test_instance_figures_are_the_same_on_any_number_of_processes(
    found: dict[int, list[Figures]], case: str, stage: str
) -> None:
    expected = found[1][0][f"{case} {stage}"]
    split = "val" if stage == "validate" else "test"
    assert f"{split}/instances/pooled_auroc" in expected
    assert (f"{split}/instances_controls/occlusion/auroc" in expected) == (stage == "test")
    for rank in range(3):
        figures = found[3][rank][f"{case} {stage}"]
        assert figures.keys() == expected.keys()
        assert figures == pytest.approx(expected, abs=1e-6), f"rank {rank} of 3"
