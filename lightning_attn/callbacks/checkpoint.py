"""The two checkpoints of a run: the best one, and the last one to go on from."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.cli import ReduceLROnPlateau
from pytorch_lightning.trainer.states import TrainerFn

from lightning_attn.ops.files import replacing
from lightning_attn.runs.folder import CHECKPOINTS, folder_of


class BestAndLastCheckpoint(Checkpoint):
    """Keeps ``checkpoints/best.ckpt`` and ``checkpoints/last.ckpt`` in the run's folder.

    ``last.ckpt`` is written at the end of every epoch and at no other time, so that a run that goes on from it ends
    as one that was never stopped. ``best.ckpt`` is the one with the best ``monitor`` among the validations of the
    mitigation's present phase: under random attention a network is another thing than with its own, and its loss
    says nothing about what comes after. Files are replaced in one move, so that a run killed while
    writing leaves the old one whole. A run that is resumed in a new folder takes the best checkpoint along; the files
    of the old run are only read.

    Args:
        monitor: Logged figure that decides which checkpoint is best.
        mode: Whether ``min`` or ``max`` of it is best.

    Attributes:
        best_model_path: Of ``best.ckpt``; empty while there is none.
        best_model_score: ``monitor`` of ``best.ckpt``; None while there is none.
        last_model_path: Of ``last.ckpt``; empty while there is none.
        current_score: ``monitor`` at the latest validation; None before it.
    """

    # What a logger that keeps checkpoints reads, as it reads it from Lightning's ModelCheckpoint.
    save_top_k = 1
    save_last = True
    save_weights_only = False

    def __init__(self, monitor: str = "val/loss", mode: Literal["min", "max"] = "min") -> None:
        self.monitor = monitor
        self.mode = mode
        self.best_model_path = ""
        self.best_model_score: float | None = None
        self.last_model_path = ""
        self.current_score: float | None = None
        self._phase = ""
        self._plateau: list[tuple[int, float]] = []
        self._finished = False
        self._folder = Path()
        self._inherited = False  # whether the run that this one goes on with had a best checkpoint

    @property
    def state_key(self) -> str:
        """One state for each figure that is monitored."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder; it is the first process that knows it."""
        if stage == "fit" and not vars(trainer)["fast_dev_run"]:
            self._folder = folder_of(trainer) / CHECKPOINTS

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the best checkpoint of the run that this one goes on with, and the step that was due there."""
        if self._inherited:
            self._inherit(trainer)
        # A plateau scheduler steps after the last hook of an epoch, and so after last.ckpt was written. Lightning does
        # not make up for it (the other schedulers step before).
        for number, value in self._plateau:
            scheduler = cast(ReduceLROnPlateau, trainer.lr_scheduler_configs[number].scheduler)
            scheduler.step(value)
        self._plateau = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``best.ckpt`` if there was no better validation in this phase."""
        if not self._saving(trainer) or self.monitor not in trainer.callback_metrics:
            return
        phase = str(getattr(getattr(pl_module, "mitigation", None), "phase", ""))
        score = self.current_score = float(trainer.callback_metrics[self.monitor])
        if math.isnan(score) or (phase == self._phase and not self._better(score)):
            return
        self._phase, self.best_model_score = phase, score
        self.best_model_path = str(self._folder / "best.ckpt")
        self._save(trainer, self.best_model_path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``last.ckpt``."""
        if self._saving(trainer):
            self._finished = _is_last_epoch(trainer)
            self.last_model_path = str(self._folder / "last.ckpt")
            self._save(trainer, self.last_model_path)

    def state_dict(self) -> dict[str, Any]:
        """Score, phase and path of the best checkpoint, scheduler steps that are due, and whether this was the end."""
        return {
            "best_model_path": self.best_model_path,
            "best_model_score": self.best_model_score,
            "phase": self._phase,
            "plateau": self._plateau,
            "training_finished": self._finished,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; the file is taken over when training starts."""
        self._inherited = bool(state_dict["best_model_path"])
        self.best_model_score = state_dict["best_model_score"]
        self._phase = state_dict["phase"]
        self._plateau = [tuple(step) for step in state_dict["plateau"]]

    def _better(self, score: float) -> bool:
        best = self.best_model_score
        return best is None or (score < best if self.mode == "min" else score > best)

    def _saving(self, trainer: Trainer) -> bool:
        return (
            trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not vars(trainer)["fast_dev_run"]
        )

    def _save(self, trainer: Trainer, path: str) -> None:
        self._plateau = _due_plateau_steps(trainer)
        if trainer.is_global_zero:
            # Lightning writes into the temporary folder and moves the file here: a copy, from another file system.
            with replacing(path) as unfinished:
                trainer.save_checkpoint(unfinished, weights_only=False)
        else:
            trainer.save_checkpoint(f"{path}.part", weights_only=False)
        self._plateau = []
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)  # type: ignore[arg-type]  # made for ModelCheckpoint alone

    def _inherit(self, trainer: Trainer) -> None:
        # The best checkpoint is the one that lies beside the one resumed from. A path out of a checkpoint is never
        # opened: it is another's word, and at the recorded place there may be another run's file by now.
        source = Path(trainer.ckpt_path or "").parent / "best.ckpt"
        if not source.is_file():
            rank_zero_warn(f"There is no {source} beside the checkpoint: the best one is sought anew.")
            self.best_model_score = None
        else:
            target = self._folder / source.name
            if trainer.is_global_zero and source.resolve() != target.resolve():
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as unfinished:
                    shutil.copyfile(source, unfinished)
            self.best_model_path = str(target)
        self._inherited = False


def is_finished(checkpoint: Mapping[str, Any]) -> bool:
    """Whether nothing was left to train when this ``last.ckpt`` was written, under the configuration of its run."""
    states = checkpoint.get("callbacks", {}).values()
    return any(isinstance(state, dict) and state.get("training_finished") is True for state in states)


def _is_last_epoch(trainer: Trainer) -> bool:
    """Whether training stops after the epoch that is ending; Lightning's own answer changes its counters."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    return (
        (trainer.should_stop and trainer.fit_loop._can_stop_early)
        or 0 <= steps <= trainer.global_step
        or (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1)
    )


def _due_plateau_steps(trainer: Trainer) -> list[tuple[int, float]]:
    """Number of each plateau scheduler that will step at the end of this epoch, and the figure it will be given."""
    if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return []
    return [
        (number, float(trainer.callback_metrics[config.monitor]))
        for number, config in enumerate(trainer.lr_scheduler_configs)
        if config.reduce_on_plateau
        and config.interval == "epoch"
        and (trainer.current_epoch + 1) % config.frequency == 0
        and config.monitor in trainer.callback_metrics
    ]
