"""Where figures go: a CSV file always, Weights & Biases unless switched off; none of them can stop a training."""

from __future__ import annotations

import csv
import functools
import io
import math
import os
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast
from weakref import WeakSet

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only
from pytorch_lightning.loggers import Logger, WandbLogger

from lightning_attn.errors import InputError
from lightning_attn.ops.files import replacing
from lightning_attn.ops.text import visible
from lightning_attn.runs.folder import METRICS

_Result = TypeVar("_Result")
WandbMode = Literal["offline", "online", "disabled"]
#: What is logged once an epoch, and has the epoch as its x axis in Weights & Biases.
EPOCH_METRICS = ("val/*", "test/*", "mitigation/*", "train/loss")
#: The ways in which Lightning and our callbacks hand something to a logger.
_METHODS = (
    "log_metrics",
    "log_hyperparams",
    "log_graph",
    "log_table",
    "log_text",
    "log_image",
    "save",
    "after_save_checkpoint",
    "finalize",
)


#: Loggers whose failure has been mentioned.
_FAILED: WeakSet[Logger] = WeakSet()


class MetricsFile(Logger):
    """Writes ``metrics.csv`` into a run's folder: one row per epoch, one column per figure.

    What is logged at the same step shares a row. Every row is on the disk when the call returns, a kill at any moment
    leaves a file that can be read, and a figure that appears late gets a column then. Lightning's ``CSVLogger`` does
    none of this: it writes a row per call, keeps rows in memory until it flushes them, writes the file anew in place
    when a column comes, and loses rows that a full disk refused.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self._columns = ["epoch", "step"]
        self._rows: list[dict[str, Any]] = []  # the last row, and before it those that could not be written yet
        self._offset: int | None = None  # where they start in the file; None while there is no file
        self._undefined: set[str] = set()  # figures of which it was said

    @property
    def name(self) -> str:
        """Empty: the folder is the run's own."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the folder is the run's own."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the figures of a step; one that is undefined is left empty, and said so once."""
        defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}
        for name in [name for name, value in defined.items() if value is None and name not in self._undefined]:
            self._undefined.add(name)
            rank_zero_info(f"{visible(name)} is undefined for these examples, and is left empty in {METRICS}.")
        row = {"epoch": metrics.get("epoch"), "step": step, **defined}
        last = self._rows[-1] if self._rows else {}
        place = ("epoch", "step")
        if all(last.get(name) == row[name] for name in place) and not (row.keys() & last.keys()) - set(place):
            last.update(row)
        else:
            self._rows.append(row)
        self._write()

    def _write(self) -> None:
        new = sorted({name for row in self._rows for name in row} - set(self._columns))
        path = self.folder / METRICS
        if self._offset is None or new:
            columns = [*self._columns, *new]
            written = b"" if self._offset is None else _read(path, self._offset)
            earlier = list(csv.DictReader(io.StringIO(written.decode())))
            start = _lines([dict(zip(columns, columns, strict=True)), *earlier], columns)
            with replacing(path) as unfinished:
                unfinished.write_bytes(start + _lines(self._rows, columns))
            self._columns, self._offset = columns, len(start)
        else:
            with path.open("r+b") as file:
                file.seek(self._offset)
                # Rows only grow, so this covers what was there, in one call: there is no moment without the old row.
                file.write(_lines(self._rows, self._columns))
                file.truncate()
        self._offset += len(_lines(self._rows[:-1], self._columns))
        self._rows = self._rows[-1:]


def _read(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _lines(rows: Iterable[dict[str, Any]], columns: list[str]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def wandb_mode(chosen: WandbMode | None) -> WandbMode:
    """The mode of Weights & Biases: the chosen one, else that of ``WANDB_MODE``, else offline.

    Raises:
        InputError: ``WANDB_MODE`` holds an unknown mode.
    """
    mode = chosen or os.environ.get("WANDB_MODE") or "offline"
    known = {"offline": "offline", "dryrun": "offline", "online": "online", "run": "online", "disabled": "disabled"}
    if mode not in known:
        raise InputError(f"WANDB_MODE is {mode!r}; it can be offline, online or disabled.")
    return cast(WandbMode, known[mode])


def start_wandb(folder: Path, mode: Literal["offline", "online"]) -> WandbLogger | None:
    """A Weights & Biases run whose files lie in the run's folder.

    Args:
        folder: The run's folder; its name is the run's.
        mode: ``offline`` writes files only; ``online`` needs an account.

    Returns:
        The logger; None, after a warning, if an offline run could not be started.

    Raises:
        InputError: An online run could not be started.
    """
    try:
        import wandb  # takes a while, and not every command needs it

        # Its console capture would take the progress bar apart; what it prints, we say in one line ourselves.
        settings = wandb.Settings(silent=True, console="off")
        run = wandb.init(project="lightning_attn", name=folder.name, dir=folder, mode=mode, settings=settings)
    except Exception as error:  # whatever fails in there, the training can do without
        _not_started(mode, error)
        return None
    return WandbLogger(project="lightning_attn", name=folder.name, save_dir=folder, experiment=run)


def start_wandb_loggers(configured: Sequence[WandbLogger], folder: Path, chosen: WandbMode | None) -> list[WandbLogger]:
    """Start the user's own loggers, or ours if there is none.

    Args:
        configured: The user's own, not started yet.
        folder: The run's folder.
        chosen: The mode that the user asked for, or None.

    Returns:
        Those that did start; none at all if Weights & Biases is disabled.

    Raises:
        InputError: An online run could not be started.
    """
    mode = wandb_mode(chosen)
    if mode == "disabled":
        return []
    if configured:
        started = [_start_configured(logger, folder, chosen) for logger in configured]
    else:
        started = [start_wandb(folder, mode)]
    return [logger for logger in started if logger is not None]


def finish_wandb(logger: WandbLogger, failed: bool) -> None:
    """End the run of a logger that was started."""
    attempt(logger, lambda: logger.experiment.finish(exit_code=int(failed)))


def _start_configured(logger: WandbLogger, folder: Path, chosen: WandbMode | None) -> WandbLogger | None:
    # The logger is changed, and not its configuration, which is recorded and may be run again in another mode.
    mode = wandb_mode("offline" if chosen is None and logger._offline else chosen)
    logger._offline = False  # it would change the environment of this process, and so what later runs do
    logger._wandb_init["mode"] = mode
    if logger.save_dir in (None, "."):  # the default, which litters the current folder
        logger._save_dir = logger._wandb_init["dir"] = str(folder)
    try:
        _ = logger.experiment
    except Exception as error:  # as above
        _not_started(mode, error)
        return None
    return logger


def _not_started(mode: WandbMode, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    if mode == "online":
        raise InputError(
            f"Weights & Biases cannot be reached: {reason}; log in with `wandb login`, or use --wandb offline."
        ) from error
    warnings.warn(f"This run goes without Weights & Biases, which did not start: {reason}", stacklevel=3)


def use_epoch_axis(logger: WandbLogger) -> None:
    """Let Weights & Biases draw what is logged once an epoch over the epoch; Lightning's own choice is the step."""

    def define() -> None:
        run = logger.experiment
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        run.define_metric("epoch")
        for name in EPOCH_METRICS:
            run.define_metric(name, step_metric="epoch")

    attempt(logger, define)


def attempt(logger: Logger, action: Callable[[], _Result]) -> _Result | None:
    """What the action returns; None, and one warning per logger, if it fails."""
    logger = getattr(logger, "guarded", logger)
    try:
        return action()
    except Exception as error:  # a full disk, a lost server, a service that died: none is worth a training
        if logger not in _FAILED:
            _FAILED.add(logger)
            name = type(logger).__name__
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(f"{name} failed and may miss figures; the training goes on: {reason}", stacklevel=3)
        return None


class GuardedLogger:
    """Hands everything on to a logger; where that fails, it warns once and loses what it was given.

    It passes for the logger: Lightning and callbacks ask of which class a logger is. It goes to another process as any
    logger does.

    Args:
        logger: Whose failures must not end a training.
    """

    def __init__(self, logger: Logger) -> None:
        self.guarded = logger

    @property  # type: ignore[misc]  # what isinstance asks beside the type
    def __class__(self) -> type[Logger]:  # type: ignore[override]
        return type(self.guarded)

    def __getattr__(self, name: str) -> Any:
        if name == "guarded":  # it is not there yet
            raise AttributeError(name)
        value = getattr(self.guarded, name)
        return functools.partial(self._attempt, value) if name in _METHODS and callable(value) else value

    def __reduce__(self) -> tuple[Any, ...]:
        return GuardedLogger, (self.guarded,)

    def _attempt(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return attempt(self.guarded, lambda: method(*args, **kwargs))


def guard(logger: Logger) -> Logger:
    """A logger that warns once and loses what it was given where this one fails, see :class:`GuardedLogger`."""
    return cast(Logger, GuardedLogger(logger))
