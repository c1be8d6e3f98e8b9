"""Ends what a network that diverged would go on with: `DivergenceGuard`."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn
from typing_extensions import override

from lightning_attn.errors import DivergedError
from lightning_attn.ops.evaluation import not_finite


class DivergenceGuard(Callback):
    """Raises `DivergedError` where the weights of a network, or its loss over an epoch, are not finite.

    Every module of this package brings it along. It looks at the end of an epoch, before a checkpoint is written;
    before something is measured; every ``log_every_n_steps`` steps; and when something fails, which a network that
    diverged may be the cause of. In between nothing waits for the device.
    """

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        if (batch_idx + 1) % every == 0:
            self._check(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, pl_module, "train/loss")

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._check(trainer, pl_module, "val/loss")

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, pl_module)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception) and not isinstance(exception, (DivergedError, OSError)):
            try:
                self._check(trainer, pl_module)
            except DivergedError as error:
                raise error from exception

    def _check(self, trainer: Trainer, pl_module: LightningModule, loss: str = "") -> None:
        network = getattr(pl_module, "network", None)
        reason = not_finite(network) if isinstance(network, nn.Module) else ""
        value = trainer.callback_metrics.get(loss)
        if not reason and value is not None and not value.isfinite():
            reason = f"{loss} is {value.item()}"
        if not reason:
            return
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            raise DivergedError(f"Nothing can be measured: {reason}. The training diverged; take another checkpoint.")
        raise DivergedError(
            f"The training diverged in epoch {trainer.current_epoch}: {reason}. Checkpoints of earlier epochs are as "
            "they were; try a smaller learning rate, or --trainer.gradient_clip_val 1."
        )
