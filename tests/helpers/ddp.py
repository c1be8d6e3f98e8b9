"""Runs in as many processes as they are told, by gloo: ``python -m tests.helpers.ddp WORLD FOLDER TASK ...``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from matplotlib.figure import Figure

from lightning_attn.callbacks import AttentionTableCallback, FaithfulnessCallback, InstanceCallback, ShortcutProbe
from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.mitigations import Compose, InstanceWeighting, RandomPretraining
from tests.helpers.experiments import four
from tests.helpers.rows import Recorder
from tests.helpers.runs import bag_module, tiny_bags, tiny_data, tiny_module, trainer

ROOT = Path(__file__).parents[2]
Results = dict[str, dict[str, Any]]

#: Evaluation sets and samples: sizes that 2 and 3 processes do not divide, fewer examples than processes, a sample.
CASES = {"37": (37, None), "5": (5, None), "2": (2, None), "37 sampled": (37, 16)}
#: Bags of a split, and of the sample.
BAG_CASES = {"21": (21, None), "2": (2, None), "21 sampled": (21, 6)}


def faithfulness(folder: Path, **options: Any) -> Results:
    """Figures of every case in ``validate`` and in ``test``."""
    logged = {}
    for name, (size, max_examples) in CASES.items():
        data = tiny_data(val=size, test=size)
        for stage in ("validate", "test"):
            run = trainer(folder / f"{name} {stage}", callbacks=_callbacks(max_examples), **options)
            getattr(run, stage)(tiny_module(data, sharpness=3.0), data, verbose=False)
            logged[f"{name} {stage}"] = _figures(run.callback_metrics)
    return logged


def experiments(folder: Path, **options: Any) -> Results:
    """Figures of the four experiments; their files lie under the name of the case."""
    logged = {}
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    with mock.patch.object(Figure, "savefig", mock.Mock() if first else _forbidden):  # it takes most of the time
        for name in ("37 sampled", "5", "2"):
            size, max_examples = CASES[name]
            data = tiny_data(test=size)
            callbacks = four(max_examples=max_examples, splits=["test"])
            run = trainer(folder / name, callbacks=callbacks, **options)
            run.test(tiny_module(data, sharpness=3.0), data, verbose=False)
            logged[name] = _figures(run.callback_metrics)
    return logged


def instances(folder: Path, **options: Any) -> Results:
    """Figures of bags, in ``validate`` and in ``test``."""
    logged = {}
    for name, (size, sample) in BAG_CASES.items():
        data = tiny_bags(val_size=size, test_size=size)
        for stage in ("validate", "test"):
            run = trainer(folder, callbacks=[InstanceCallback(max_examples=sample, orders=2)], **options)
            getattr(run, stage)(bag_module(data), data, verbose=False)
            logged[f"{name} {stage}"] = _figures(run.callback_metrics)
    return logged


def shortcut(folder: Path, **options: Any) -> Results:
    """Figures of the probe, of all examples and of a sample."""
    logged, data = {}, tiny_data(train=40, val=41)
    for name, size in {"all": None, "sampled": 30}.items():
        run = trainer(folder, callbacks=[ShortcutProbe(max_examples=size)], **options)
        run.validate(tiny_module(data, sharpness=3.0), data, verbose=False)
        logged[name] = _figures({key: value for key, value in run.callback_metrics.items() if "shortcut" in key})
    return logged


def fit(folder: Path, **options: Any) -> Results:
    """Both mitigations, through their phases: figures, the sum of the weights, and the number of epochs."""
    # 9 training and 3 evaluation batches: neither number divides by 2.
    data = tiny_data(train=36, val=9)
    module = tiny_module(data, Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=3)]))
    run = trainer(folder, callbacks=_callbacks(None), max_epochs=3, num_sanity_val_steps=2, **options)
    run.fit(module, data)
    weights = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    trained = {"sum": float(weights.double().sum()), "epochs": float(run.current_epoch)}
    return {"fit": _figures(run.callback_metrics), "weights": trained}


def text_rows(folder: Path, **options: Any) -> Results:
    """The rows that this process was given in every stage."""
    data = SyntheticReviewsDataModule(train_size=10, val_size=5, test_size=5, batch_size=3)
    model, run = _recorded(data, folder, **options)
    return {"rows": {**model.seen, "predict": run.predict(model, datamodule=data)}}


def bag_rows(folder: Path, **options: Any) -> Results:
    """The bags that this process was given in every stage but ``predict``."""
    model, _ = _recorded(
        tiny_bags(train_size=10, val_size=5, test_size=5, batch_size=3, max_instances=60), folder, **options
    )
    return {"rows": model.seen}


TASKS: dict[str, Callable[..., Results]] = {
    task.__name__: task for task in (faithfulness, experiments, instances, shortcut, fit, text_rows, bag_rows)
}


def launch(world: int, folder: Path, *tasks: str) -> list[dict[str, Results]]:
    """Results by task, of each rank; what a task writes lies in the folder of its name."""
    if world == 1:
        return [{task: TASKS[task](folder / task) for task in tasks}]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.helpers.ddp", str(world), str(folder), *tasks]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world)]


def _callbacks(max_examples: int | None) -> list[Any]:
    return [FaithfulnessCallback(max_examples=max_examples), AttentionTableCallback(max_examples=4)]


def _figures(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items()}


def _recorded(data: Any, folder: Path, **options: Any) -> tuple[Recorder, Any]:
    model, run = Recorder(), trainer(folder, num_sanity_val_steps=2, **options)
    run.fit(model, datamodule=data)
    run.test(model, datamodule=data, verbose=False)
    assert run.callback_metrics["rows"] == 5
    return model, run


def _forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("only rank 0 may write")


if __name__ == "__main__":
    processes, place, rank = int(sys.argv[1]), Path(sys.argv[2]), int(os.environ.get("LOCAL_RANK", "0"))
    torch.set_num_threads(1)
    write = Path.write_text
    if rank:
        Path.write_text = Path.mkdir = Figure.savefig = _forbidden  # type: ignore[assignment, method-assign]
    strategy = {"devices": processes, "strategy": "ddp_find_unused_parameters_true"}
    results = {task: TASKS[task](place / task, **strategy) for task in sys.argv[3:]}
    write(place / f"rank{rank}.json", json.dumps(results))
