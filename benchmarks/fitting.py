"""Training as benchmarks do it: a quiet Trainer, and the best epoch in the end, or none where steps are timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from lightning_attn.callbacks import BestAndLastCheckpoint
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.tasks.base import AttentionModule
from lightning_attn.types import Batch

#: Nothing printed, nothing logged, no look at validation before training.
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def trainer_of(epochs: int, folder: str | Path, callbacks: list[Any], clip: float | None = None) -> Trainer:
    """A quiet Trainer on one device.

    Args:
        epochs: How many.
        folder: Where its checkpoints go.
        callbacks: Its callbacks.
        clip: Most that the norm of the gradient may be; None leaves it as it is.
    """
    return Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        callbacks=callbacks,
        gradient_clip_val=clip,
        default_root_dir=folder,
        **QUIET,
    )


def timed_trainer(accelerator: str = "cpu", **settings: Any) -> Trainer:
    """A quiet Trainer on one device that writes nothing.

    Args:
        accelerator: Of Lightning.
        settings: Further ones of `Trainer`, how long first of all.
    """
    return Trainer(accelerator=accelerator, devices=1, enable_checkpointing=False, **QUIET, **settings)


def fit_steps(module: AttentionModule, batches: Sequence[Batch], clip: float | None = None) -> None:
    """Train for a step on each of these batches.

    Args:
        module: Ends with the weights of the last step.
        batches: In the order in which they are taken.
        clip: See :func:`trainer_of`.
    """
    # Random pretraining refuses a training that is over before it is: steps end it, not epochs.
    trainer = timed_trainer(max_epochs=-1, max_steps=len(batches), gradient_clip_val=clip)
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def fit_best(
    module: AttentionModule,
    data: AttentionDataModule,
    epochs: int,
    folder: str | Path,
    clip: float | None = None,
    monitor: str = "val/loss",
    mode: Literal["min", "max"] = "min",
) -> Trainer:
    """Train, and load the weights of the epoch with the least validation loss (of the last phase).

    Training that was killed goes on from its last whole epoch if ``folder`` is the same.

    Args:
        module: Holds the best weights in the end.
        data: Its data.
        epochs: See :func:`trainer_of`.
        folder: See :func:`trainer_of`.
        clip: See :func:`trainer_of`.
        monitor: What decides in place of the loss.
        mode: Whether the least or the most of it is best.

    Returns:
        The Trainer, for tests.
    """
    checkpoint = BestAndLastCheckpoint(monitor, mode)
    trainer = trainer_of(epochs, folder, [checkpoint], clip)
    # A resumed run writes into a folder of its own below.
    found = sorted(Path(folder).glob("**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    last = found[-1] if found else None
    trainer.fit(module, data, ckpt_path=None if last is None else str(last))
    # None is written where the last epoch was done already.
    best = checkpoint.best_model_path if last is None else checkpoint.best_model_path or last.parent / "best.ckpt"
    module.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    return trainer
