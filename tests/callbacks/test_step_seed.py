from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_attn.callbacks import StepSeed


def drawn(seed: int = 0, epoch: int = 0, rank: int = 0, step: int = 0) -> tuple[float, float, float]:
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    StepSeed(seed).on_train_batch_start(trainer, torch.nn.Module(), None, step)  # type: ignore[arg-type]
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_step_draws_the_same_whatever_came_before() -> None:
    first = drawn(epoch=3, step=7)
    drawn(epoch=1, step=2)
    torch.rand(100)
    assert drawn(epoch=3, step=7) == first


@pytest.mark.parametrize("place", [{"seed": 1}, {"epoch": 1}, {"rank": 1}, {"step": 1}])
def test_every_part_of_the_place_counts(place: dict[str, int]) -> None:
    assert all(one != other for one, other in zip(drawn(), drawn(**place), strict=True))


def test_layers_depend_on_the_seed_alone() -> None:
    trainer: Any = SimpleNamespace()
    weights = []
    for before in (0, 99):
        torch.rand(before)
        StepSeed(5).setup(trainer, torch.nn.Module(), "fit")  # type: ignore[arg-type]
        weights.append(torch.nn.Linear(3, 3).weight)
    assert torch.equal(*weights)
