"""A run's folder: a new one for every run, made by one process and known to all."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from weakref import WeakKeyDictionary

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_attn.errors import InputError

CONFIG = "config.yaml"
METRICS = "metrics.csv"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.jsonl"
#: What our callbacks write into a folder, and would replace there.
_RESULTS = (f"{CHECKPOINTS}/best.ckpt", f"{CHECKPOINTS}/last.ckpt", "attention/*.html", PREDICTIONS)
#: What each Trainer was given, and for which choice of its loggers.
_FOLDERS: WeakKeyDictionary[Trainer, tuple[Path, Path]] = WeakKeyDictionary()


def new_run_folder(root: str | Path, name: str) -> Path:
    """Make ``ROOT/TIMESTAMP-NAME``, with ``-2``, ``-3`` ... behind it if runs start in the same second.

    Args:
        root: Where runs are kept; made if it is not there.
        name: What the run is about, such as the name of its configuration.

    Returns:
        The new, empty folder, absolute.

    Raises:
        InputError: The folder cannot be made, or nothing can be written into it.
    """
    root = Path(root).expanduser().absolute()
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = root / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()  # fails if another run was quicker: the folder is ours alone
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"The run folder cannot be made in {root}: {reason}; choose another place with --trainer.default_root_dir."
        ) from error


def folder_of(trainer: Trainer) -> Path:
    """Where a Trainer's callbacks write; every process must ask, because they agree on it.

    That is the place of its first logger (``SAVE_DIR/NAME/VERSION`` where it has them), without a logger
    ``default_root_dir``. If the results of another Trainer lie there, it is a new folder ``version_1``, ``version_2``
    ... in it: nothing of an earlier run is ever replaced. One Trainer keeps its folder.
    """
    place: Path = trainer.strategy.broadcast(_place(trainer))
    known = _FOLDERS.get(trainer)
    if known is not None and known[0] == place:
        return known[1]
    folder: Path = trainer.strategy.broadcast(_unused(place) if trainer.is_global_zero else place)
    if folder != place:
        rank_zero_warn(f"{place} holds the results of another run; those of this one go into {folder}.")
    _FOLDERS[trainer] = (place, folder)
    return folder


def _place(trainer: Trainer) -> Path:
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):
        return Path(logger.log_dir)
    version = f"version_{logger.version}" if isinstance(logger.version, int) else logger.version
    return Path(logger.save_dir or trainer.default_root_dir, logger.name or "", version or "")


def _unused(place: Path) -> Path:
    if not any(next(place.glob(pattern), None) for pattern in _RESULTS):
        return place
    number = 1
    while True:
        folder = place / f"version_{number}"
        try:
            folder.mkdir()  # fails if another Trainer was quicker: the folder is ours alone
        except FileExistsError:
            number += 1
        else:
            return folder


def discard(folder: Path) -> None:
    """Take back a run folder in which nothing was trained.

    Only what a run writes before it starts is removed, by name, and the folder only if that leaves it empty: whatever
    else lies there is the user's.
    """
    (folder / CONFIG).unlink(missing_ok=True)
    if (folder / "wandb").is_dir():
        shutil.rmtree(folder / "wandb")
    if not any(folder.iterdir()):
        folder.rmdir()


def is_first_process() -> bool:
    """Whether this process has global rank 0, as far as the environment tells before processes know each other."""
    # The order in which Lightning reads them: a process on another machine may have the local rank 0.
    for variables in (("RANK",), ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"), ("SLURM_PROCID",)):
        ranks = [int(os.environ[name]) for name in variables if name in os.environ]
        if ranks:
            return max(ranks) == 0
    return True
