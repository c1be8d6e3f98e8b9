"""Real processes, by gloo: what the probes find does not depend on their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def launch(world: int, folder: Path) -> list[dict[str, dict[str, float]]]:
    """What each rank found."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.ddp_shortcut", str(world), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]


def test_shortcut_figures_are_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    (expected,) = launch(1, tmp_path)
    for rank, found in enumerate(launch(2, tmp_path)):
        for case, figures in expected.items():
            assert "val/shortcut/encoding_bits" in figures
            assert found[case] == pytest.approx(figures, abs=1e-5), f"{case} on rank {rank} of 2"
