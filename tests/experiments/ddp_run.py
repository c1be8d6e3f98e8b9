"""Run by `test_processes` as a script: ``python -m tests.experiments.ddp_run WORLD FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lightning_attn.experiments import (
    AdversarialCallback,
    AgreementCallback,
    CounterfactualCallback,
    PermutationCallback,
)
from tests.helpers.runs import tiny_data, tiny_module, trainer

#: Test sets and samples: a sample of a size that 2 and 3 processes do not divide, and fewer examples than processes.
CASES = {"37 sampled": (37, 16), "5": (5, None), "2": (2, None)}


def forbidden(*arguments: Any, **named: Any) -> None:
    raise AssertionError("only rank 0 may write")


def run(world: int, folder: Path) -> dict[str, dict[str, float]]:
    found = {}
    for name, (size, max_examples) in CASES.items():
        data = tiny_data(test=size)
        callbacks: list[Any] = [
            kind(max_examples=max_examples)
            for kind in (AgreementCallback, PermutationCallback, AdversarialCallback, CounterfactualCallback)
        ]
        strategy = "ddp" if world > 1 else "auto"
        each = trainer(folder / name, devices=world, strategy=strategy, callbacks=callbacks)
        each.test(tiny_module(data, sharpness=3.0), data, verbose=False)
        found[name] = {key: float(value) for key, value in each.callback_metrics.items()}
    return found


if __name__ == "__main__":
    processes, place = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    write = Path.write_text
    Figure.savefig = lambda *_, **__: None  # type: ignore[assignment, method-assign]  # it takes most of the time
    if rank:
        Path.write_text = Path.mkdir = Figure.savefig = forbidden  # type: ignore[assignment, method-assign]
    results = run(processes, place)
    write(place / f"figures-{rank}.json", json.dumps(results))
