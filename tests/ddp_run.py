"""Run by `test_ddp` as a script, in as many processes as it is told: ``python -m tests.ddp_run TASK WORLD FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lightning_attn.callbacks import AttentionTableCallback, FaithfulnessCallback
from lightning_attn.mitigations import Compose, InstanceWeighting, RandomPretraining
from tests.helpers.runs import tiny_data, tiny_module, trainer

#: Evaluation sets and samples: sizes that 2 and 3 processes do not divide, fewer examples than processes, a sample.
CASES = {"37": (37, None), "5": (5, None), "2": (2, None), "37 sampled": (37, 16)}


def forbidden(*arguments: Any, **named: Any) -> None:
    raise AssertionError("only rank 0 may write")


def run(world: int, folder: Path, max_examples: int | None, **arguments: Any) -> Any:
    callbacks = [FaithfulnessCallback(max_examples=max_examples), AttentionTableCallback(max_examples=4)]
    strategy = "ddp_find_unused_parameters_true" if world > 1 else "auto"
    return trainer(folder, devices=world, strategy=strategy, callbacks=callbacks, **arguments)


def validate(world: int, folder: Path) -> dict[str, dict[str, float]]:
    found = {}
    for name, (size, max_examples) in CASES.items():
        data = tiny_data(val=size, test=size)
        for stage in ("validate", "test"):
            each = run(world, folder / f"{name} {stage}", max_examples)
            getattr(each, stage)(tiny_module(data, sharpness=3.0), data, verbose=False)
            found[f"{name} {stage}"] = {key: float(value) for key, value in each.callback_metrics.items()}
    return found


def fit(world: int, folder: Path) -> dict[str, dict[str, float]]:
    # 9 training and 3 evaluation batches: neither number divides by 2.
    data = tiny_data(train=36, val=9)
    module = tiny_module(data, Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=3)]))
    each = run(world, folder, None, max_epochs=3, num_sanity_val_steps=2)
    each.fit(module, data)
    weights = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    figures = {key: float(value) for key, value in each.callback_metrics.items()}
    return {"fit": figures, "weights": {"sum": float(weights.double().sum()), "epochs": float(each.current_epoch)}}


if __name__ == "__main__":
    task, processes, place = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    write = Path.write_text
    if rank:
        Path.write_text = Path.mkdir = Figure.savefig = forbidden  # type: ignore[assignment, method-assign]
    results = {"validate": validate, "fit": fit}[task](processes, place)
    write(place / f"{task}-{processes}-{rank}.json", json.dumps(results))
