from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from lightning_attn.cli.commands import main
from tests.helpers.commands import assert_same_training, command, last, run, start, write_config

STEP_LR = (
    "--model.init_args.lr_scheduler.class_path=torch.optim.lr_scheduler.StepLR",
    "--model.init_args.lr_scheduler.init_args.step_size=1",
    "--model.init_args.lr_scheduler.init_args.gamma=0.7",
)
PLATEAU = (
    "--model.init_args.lr_scheduler.class_path=pytorch_lightning.cli.ReduceLROnPlateau",
    "--model.init_args.lr_scheduler.init_args.monitor=val/loss",
    "--model.init_args.lr_scheduler.init_args.patience=0",
    "--model.init_args.lr_scheduler.init_args.threshold=0.5",
)
# Time to hit it in the middle of an epoch; a callback without random numbers changes nothing in the training.
SLOW = ("--trainer.callbacks+=tests.helpers.commands.Slow",)


def wait_for_epoch(process: subprocess.Popen[str], epochs: int, runs: Path) -> None:
    """Until the epochs are over and their checkpoint is written."""
    assert process.stdout is not None
    for _ in range(epochs):
        assert next(line for line in process.stdout if line.startswith("Epoch"))
    while not list(runs.glob("*/checkpoints/last.ckpt")):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def unbroken(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("fit", config, tmp_path_factory.mktemp("unbroken"), *STEP_LR)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_killed_run_ends_as_one_that_was_not(config: Path, unbroken: Path, tmp_path: Path, epochs: int) -> None:
    runs = tmp_path / "runs"
    victim = start(*command("fit", config, runs, "--wandb=disabled", *STEP_LR, *SLOW))
    wait_for_epoch(victim, epochs, runs)
    time.sleep(random.Random(epochs).uniform(0, 0.4))
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    (killed,) = runs.iterdir()
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    resumed = run("fit", config, tmp_path / "resumed", *STEP_LR, f"--ckpt_path={killed}/checkpoints/last.ckpt")
    assert_same_training(resumed, unbroken)
    assert {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("scheduler", "stop"), [(PLATEAU, 1), (PLATEAU, 3), ((), 2)], ids=["early", "late", "none"])
def test_schedulers_go_on_where_they_were(config: Path, tmp_path: Path, stop: int, scheduler: tuple[str, ...]) -> None:
    whole = run("fit", config, tmp_path / "whole", *scheduler)
    part = run("fit", config, tmp_path / "part", f"--trainer.max_epochs={stop}", *scheduler)
    rest = run("fit", config, tmp_path / "rest", f"--ckpt_path={part}/checkpoints/last.ckpt", *scheduler)
    assert_same_training(rest, whole)
    if scheduler:  # the rate did change, or this would show nothing
        assert last(whole)["optimizer_states"][0]["param_groups"][0]["lr"] < 0.02


def test_the_best_checkpoint_can_be_gone_on_from(config: Path, unbroken: Path, tmp_path: Path) -> None:
    resumed = run("fit", config, tmp_path, *STEP_LR, f"--ckpt_path={unbroken}/checkpoints/best.ckpt")
    assert_same_training(resumed, unbroken)


def test_the_best_checkpoint_moves_into_the_new_folder(config: Path, tmp_path: Path) -> None:
    part = run("fit", config, tmp_path / "part", "--trainer.max_epochs=2")
    checkpoint = last(part)
    (key,) = (key for key in checkpoint["callbacks"] if key.startswith("BestAndLast"))
    checkpoint["callbacks"][key]["best_model_score"] = 1e-9  # nothing that comes is better
    torch.save(checkpoint, part / "checkpoints" / "last.ckpt")
    rest = run("fit", config, tmp_path / "rest", f"--ckpt_path={part}/checkpoints/last.ckpt")
    best = Path("checkpoints", "best.ckpt")
    assert (rest / best).read_bytes() == (part / best).read_bytes()
    assert last(rest)["callbacks"][key]["best_model_path"] == str(rest / best)
    # A path that a checkpoint names is not opened: without its neighbour, the best one is sought anew.
    torch.save(checkpoint, tmp_path / "last.ckpt")
    alone = run("fit", config, tmp_path / "alone", f"--ckpt_path={tmp_path}/last.ckpt")
    assert (alone / best).read_bytes() != (part / best).read_bytes()


def test_dropout_and_data_differ_from_epoch_to_epoch_but_not_from_run_to_run(config: Path, tmp_path: Path) -> None:
    one, other = (run("fit", config, tmp_path / name, "--trainer.max_epochs=2") for name in ("one", "other"))
    assert_same_training(one, other)
    third = run("fit", config, tmp_path / "third", "--trainer.max_epochs=2", "--seed_everything=1")
    assert not torch.equal(*(last(run_)["state_dict"]["network.head.layers.weight"] for run_ in (one, third)))


def test_an_interrupt_leaves_a_checkpoint_to_go_on_from(config: Path, unbroken: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    victim = start(*command("fit", config, runs, "--wandb=disabled", *STEP_LR, *SLOW))
    wait_for_epoch(victim, 1, runs)
    victim.send_signal(signal.SIGINT)
    output, errors = victim.communicate(timeout=60)
    assert victim.returncode == 130
    assert "Traceback" not in errors
    assert "--ckpt_path" in output
    (killed,) = runs.iterdir()
    resumed = run("fit", config, tmp_path / "resumed", *STEP_LR, f"--ckpt_path={killed}/checkpoints/last.ckpt")
    assert_same_training(resumed, unbroken)


def test_a_finished_run_has_nothing_to_go_on_with(config: Path, unbroken: Path, tmp_path: Path) -> None:
    arguments = command("fit", config, tmp_path, "--wandb=disabled", *STEP_LR)
    assert main([*arguments, f"--ckpt_path={unbroken}/checkpoints/last.ckpt"]) == 0
