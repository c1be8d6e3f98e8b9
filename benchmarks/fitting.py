"""Training as benchmarks do it: a quiet Trainer, and the best epoch in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer

from lightning_attn.callbacks import BestAndLastCheckpoint
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.modules.base import AttentionModule


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
        logger=False,
        callbacks=callbacks,
        gradient_clip_val=clip,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def fit_best(
    module: AttentionModule, data: AttentionDataModule, epochs: int, folder: str | Path, clip: float | None = None
) -> Trainer:
    """Train, and load the weights of the epoch with the least validation loss (of the last phase).

    Training that was killed goes on from its last whole epoch if ``folder`` is the same.

    Args:
        module: Holds the best weights in the end.
        data: Its data.
        epochs: See :func:`trainer_of`.
        folder: See :func:`trainer_of`.
        clip: See :func:`trainer_of`.

    Returns:
        The Trainer, for tests.
    """
    checkpoint = BestAndLastCheckpoint(monitor="val/loss")
    trainer = trainer_of(epochs, folder, [checkpoint], clip)
    # A resumed run writes into a folder of its own below.
    found = sorted(Path(folder).glob("**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    last = found[-1] if found else None
    trainer.fit(module, data, ckpt_path=None if last is None else str(last))
    # None is written where the last epoch was done already.
    best = checkpoint.best_model_path if last is None else checkpoint.best_model_path or last.parent / "best.ckpt"
    module.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    return trainer
