"""Plain values of all processes on every process: `gathered`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch.distributed
from pytorch_lightning import Trainer

T = TypeVar("T")


def gathered(trainer: Trainer, items: Sequence[T]) -> list[T]:
    """The items of all processes, in the order of the processes; every process must call it."""
    if trainer.world_size == 1:
        return list(items)
    parts: list[list[T]] = [[] for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]
