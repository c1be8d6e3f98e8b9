"""Random numbers that depend on the place in the training, not on its past."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seeds the random numbers of Python, NumPy and PyTorch at every training step.

    The seed is a function of ``seed``, epoch, step and process alone, so that a resumed run draws the same dropout as
    one that was never stopped, and what is drawn in validation changes nothing in training. New layers are drawn from
    ``seed`` too, whether or not the data were cached.

    Args:
        seed: Another seed is another run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Seed the layers that the module makes after this, the same on every process."""
        self._apply(0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what is drawn before the first step."""
        self._apply(1, trainer.current_epoch, trainer.global_rank)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the step."""
        self._apply(2, trainer.current_epoch, trainer.global_rank, batch_idx)

    def _apply(self, *place: int) -> None:
        # SeedSequence mixes the numbers, so that neighbouring places give streams that have nothing in common.
        state = int(np.random.SeedSequence((self.seed % 2**64, *place)).generate_state(1, np.uint64)[0])
        random.seed(state)
        np.random.seed(state % 2**32)
        torch.manual_seed(state % 2**63)
