"""Warm-up and decay: the rates of Hugging Face's schedules, counted in steps of the optimiser."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Callback

from lightning_attn.cli.commands import main
from lightning_attn.errors import InputError
from lightning_attn.optim import StepSchedule, WarmupConstant, WarmupCosine, WarmupLinear
from tests.helpers.commands import assert_same_training, command, last, run, start, write_config
from tests.helpers.runs import tiny_data, tiny_module, trainer


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates or (1.0,)])


def rates(schedule: Any, steps: int) -> list[list[float]]:
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return found


THEIRS: dict[type[StepSchedule], Callable[[Any, int, int], Any]] = {
    WarmupLinear: transformers.get_linear_schedule_with_warmup,
    WarmupCosine: transformers.get_cosine_schedule_with_warmup,
    WarmupConstant: lambda one, first, _: transformers.get_constant_schedule_with_warmup(one, first),
}


@pytest.mark.parametrize("kind", THEIRS, ids=lambda kind: kind.__name__)
@given(total=st.integers(1, 40), warmup=st.integers(0, 45))
def test_rates_are_those_of_hugging_face(kind: type[StepSchedule], total: int, warmup: int) -> None:
    ours = kind(optimizer(1.0, 0.3), warmup, total)
    theirs = THEIRS[kind](optimizer(1.0, 0.3), warmup, total)
    for found, expected in zip(rates(ours, total), rates(theirs, total), strict=True):
        assert found == pytest.approx(expected, abs=1e-12)


@given(total=st.integers(1, 300), share=st.floats(0, 0.99))
def test_a_share_is_a_number_of_steps_and_the_end_is_never_above_the_full_rate(total: int, share: float) -> None:
    schedule = WarmupLinear(optimizer(), share)
    schedule.plan(total)
    found = [rate for (rate,) in rates(schedule, total)]
    top = int(torch.tensor(found).argmax())
    assert found[top] <= 1
    assert top <= total * share + 1
    assert all(early <= late for early, late in itertools.pairwise(found[: top + 1]))
    assert all(early > late for early, late in itertools.pairwise(found[top:]))


def test_the_trainers_number_of_steps_gives_way_to_the_one_that_was_given() -> None:
    schedule = WarmupLinear(optimizer(), 0, 10)
    schedule.plan(1000)
    assert rates(schedule, 6)[5] == [0.5]


def test_a_longer_run_has_the_longer_schedule() -> None:
    short, long = WarmupLinear(optimizer(), 0.1), WarmupLinear(optimizer(), 0.1)
    short.plan(10)
    long.plan(20)
    whole = rates(long, 20)
    rates(short, 10)
    resumed = WarmupLinear(optimizer(), 0.1)
    resumed.plan(20)
    resumed.load_state_dict(short.state_dict())
    resumed.step()
    assert [group["lr"] for group in resumed.optimizer.param_groups] == pytest.approx(whole[11])


@pytest.mark.parametrize("warmup", [-0.1, 1.5])
def test_a_warm_up_that_is_neither_share_nor_number_is_refused(warmup: float) -> None:
    with pytest.raises(InputError, match=r"a share of the steps .* or a whole number of steps, not"):
        WarmupLinear(optimizer(), warmup)


def test_without_an_end_there_is_no_schedule() -> None:
    with pytest.raises(InputError, match="total_steps must be 1 or more"):
        WarmupLinear(optimizer(), 0.1, 0)
    schedule = WarmupLinear(optimizer(), 0.1)
    with pytest.raises(InputError, match=r"when training ends: set --trainer\.max_epochs"):
        schedule.plan(float("inf"))
    schedule.optimizer.step()
    with pytest.raises(InputError, match="needs total_steps"):
        schedule.step()


class Rates(Callback):
    """Keeps the rate of every step of the optimiser."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def trained(folder: Path, scheduler: Any, **arguments: Any) -> list[float]:
    data = tiny_data()
    module = tiny_module(data)
    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1e-6)
    module.lr_scheduler = scheduler
    seen = Rates()
    trainer(folder, max_epochs=3, callbacks=[seen], **arguments).fit(module, data)
    return seen.rates


def test_it_steps_with_the_optimiser_and_ends_with_the_training(tmp_path: Path) -> None:
    assert trained(tmp_path, lambda one: WarmupLinear(one, 0.2)) == pytest.approx(
        [1e-6 * (step / 4 if step < 4 else (18 - step) / 14) for step in range(18)]
    )


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    # six batches an epoch; the last step of an epoch takes what is left
    found = trained(tmp_path, lambda one: WarmupLinear(one, 3), accumulate_grad_batches=4)
    assert found == pytest.approx([1e-6 * factor for factor in (0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3)])


def test_other_schedulers_step_with_the_epoch_unless_their_class_says_otherwise(tmp_path: Path) -> None:
    class EveryStep(torch.optim.lr_scheduler.ExponentialLR):
        interval = "step"

    epochs = trained(tmp_path, lambda one: torch.optim.lr_scheduler.ExponentialLR(one, 0.5))
    assert epochs == pytest.approx([1e-6 * 0.5 ** (step // 6) for step in range(18)])
    assert trained(tmp_path, lambda one: EveryStep(one, 0.5)) == pytest.approx([1e-6 * 0.5**step for step in range(18)])


def test_an_endless_training_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    options = ["--model.init_args.lr_scheduler=WarmupLinear", "--trainer.max_epochs=-1", "--wandb=disabled"]
    assert main(command("fit", config, tmp_path / "runs", *options)) == 2


WARMUP = (
    "--model.init_args.lr_scheduler.class_path=WarmupLinear",
    "--model.init_args.lr_scheduler.init_args.warmup=0.2",
)


def test_a_run_resumed_in_the_middle_of_an_epoch_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Ten batches per epoch: the checkpoint of step 17 lies in the second, where batches must be skipped."""
    config = write_config(tmp_path)
    saving = (
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path / 'steps'}",
        "--trainer.callbacks.filename={step}",
        "--trainer.callbacks.every_n_train_steps=17",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.save_on_train_epoch_end=false",
    )
    whole = run("fit", config, tmp_path / "whole", *WARMUP, *saving)
    assert last(whole)["optimizer_states"][0]["param_groups"][0]["lr"] == 0
    resumed = run("fit", config, tmp_path / "rest", *WARMUP, f"--ckpt_path={tmp_path / 'steps' / 'step=17.ckpt'}")
    assert_same_training(resumed, whole)


def test_two_processes_take_half_the_steps(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    options = ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true", "--wandb=disabled"]
    options += ["--trainer.use_distributed_sampler=false", "--trainer.max_epochs=2", *WARMUP]
    process = start(*command("fit", config, tmp_path / "runs", *options))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    (folder,) = (tmp_path / "runs").iterdir()
    assert last(folder)["global_step"] == 10
    assert last(folder)["optimizer_states"][0]["param_groups"][0]["lr"] == 0
