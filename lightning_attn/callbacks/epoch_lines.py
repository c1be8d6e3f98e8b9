"""One line per epoch, on a terminal and in a file."""

from __future__ import annotations

import time

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

#: Figures of the line, in this order, if they were logged.
SHOWN = (
    "train/loss",
    "val/loss",
    "val/accuracy",
    "val/fidelity",
    "val/faithfulness/kendall_gradient",
    "val/faithfulness/kendall_loo",
    "val/shortcut/leaked_bits",
)


class EpochLines(Callback):
    """Prints what a training is about to do, and the most important figures of every epoch."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._earlier: dict[str, Tensor] = {}
        self._idle = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing has been trained yet."""
        self._idle = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if nothing was left to train."""
        if self._idle:
            self._print(
                trainer,
                f"Nothing is left to train: {trainer.current_epoch} of {trainer.max_epochs} epochs are done; to go on, "
                "give a larger --trainer.max_epochs.",
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how large the network is, and on what it is trained."""
        self._idle = False
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        place = f"{trainer.world_size} x {pl_module.device.type.upper()}{_precision(trainer)}"
        self._print(
            trainer,
            f"Training {parameters:,} parameters on {place}, {trainer.num_training_batches} steps per epoch.",
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and remember which figures are of earlier epochs."""
        self._start = time.monotonic()
        self._earlier = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        last = trainer.max_epochs
        # Counted from 0, as in everything that is logged.
        done = f"{trainer.current_epoch + 1}" + (f"/{last}" if last is not None and last > 0 else "")
        phase = getattr(getattr(pl_module, "mitigation", None), "phase", "learn")
        remark = " under random attention" if phase == "random" else ""
        # Lightning keeps the figures of earlier epochs among these; one that was logged again is another tensor.
        figures = [
            f"{name} {float(value):.4f}"
            for name in SHOWN
            if (value := trainer.callback_metrics.get(name)) is not None and value is not self._earlier.get(name)
        ]
        seconds = time.monotonic() - self._start
        self._print(trainer, f"Epoch {trainer.current_epoch} ({done}){remark}, {seconds:.1f} s: {', '.join(figures)}")

    def _print(self, trainer: Trainer, line: str) -> None:
        if not trainer.is_global_zero:
            return
        bar = trainer.progress_bar_callback
        if bar is not None:
            bar.print(line)  # above the bar, which a plain print would tear apart
        else:
            print(line, flush=True)


def _precision(trainer: Trainer) -> str:
    """What is worth saying of it."""
    precision = str(trainer.precision)
    if precision == "32-true":
        return ""
    if precision.endswith("mixed"):
        return f" in {precision} precision (validated and measured without autocast)"
    return f" in {precision} precision"
