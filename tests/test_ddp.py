"""Real processes, by gloo: whatever is logged does not depend on their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ddp_run import CASES

ROOT = Path(__file__).parents[1]
Results = dict[str, dict[str, float]]


def launch(task: str, world: int, folder: Path) -> list[Results]:
    """What each rank found."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.ddp_run", task, str(world), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{task}-{world}-{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Results]]:
    folder = tmp_path_factory.mktemp("ddp")
    return {world: launch("validate", world, folder) for world in (1, 2, 3)}


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_the_same_on_any_number_of_processes(
    found: dict[int, list[Results]], case: str, stage: str
) -> None:
    expected = found[1][0][f"{case} {stage}"]
    split = "val" if stage == "validate" else "test"
    assert expected[f"{split}/faithfulness/examples"] == (CASES[case][1] or CASES[case][0])
    assert {f"{split}/loss", f"{split}/auroc", f"{split}/faithfulness/kendall_loo"} <= expected.keys()
    assert (f"{split}/shortcut/leaked_bits" in expected) == (case == "37")
    for world in (2, 3):
        for rank in range(world):
            figures = found[world][rank][f"{case} {stage}"]
            assert figures.keys() == expected.keys()
            assert figures == pytest.approx(expected, abs=1e-6), f"rank {rank} of {world}"


def test_both_mitigations_train_through_their_phases_on_two_processes(tmp_path: Path) -> None:
    first, second = launch("fit", 2, tmp_path)
    assert first["weights"] == second["weights"]
    assert first["weights"]["epochs"] == 3
    assert first["fit"]["mitigation/phase"] == 1
    assert all(value == value for value in first["fit"].values())
    assert {"val/loss", "val/faithfulness/aopc", "mitigation/effective_sample_size"} <= first["fit"].keys()
    # Ranks other than 0 fail if they try to write.
    assert (tmp_path / "attention" / "val.html").read_text().count(">epoch 2: ") == 4
