"""A callback that shows something of the same few examples at every evaluation: `LookCallback`."""

from __future__ import annotations

from abc import abstractmethod

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from lightning_attn.callbacks.sampling import ExampleSample
from lightning_attn.callbacks.timing import measures_now
from lightning_attn.types import Batch, InputError


class LookCallback(Callback):
    """Collects a few examples of the validation or test set, the same ones each time, and hands them to :meth:`show`.

    Args:
        max_examples: Examples to show, at least 1.
        every_n_epochs: Validation epochs from one look to the next; validate and test always look.
        seed: Another seed, other examples.

    Raises:
        InputError: A number is below 1.
    """

    def __init__(self, max_examples: int, every_n_epochs: int, seed: int) -> None:
        self._at_least_one(max_examples=max_examples, every_n_epochs=every_n_epochs)
        self.max_examples = max_examples
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self._sample = ExampleSample(max_examples, seed)

    @property
    def state_key(self) -> str:
        """Two of them, with different examples, may be in one Trainer."""
        return self._generate_state_key(max_examples=self.max_examples, seed=self.seed)

    @abstractmethod
    def show(self, trainer: Trainer, pl_module: LightningModule, stage: str, batches: list[Batch]) -> None:
        """Show the examples of this process, padded; ``stage`` is ``val`` or ``test``. Every process is called."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the examples of the last epoch."""
        self._sample.clear()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As in validation."""
        self.on_validation_epoch_start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the chosen examples; of several loaders, those of the first."""
        if measures_now(trainer, self.every_n_epochs) and dataloader_idx == 0:
            self._sample.add(batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show ``val``."""
        self._look(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show ``test``."""
        self._look(trainer, pl_module, "test")

    def _look(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if measures_now(trainer, self.every_n_epochs):
            self.show(trainer, pl_module, stage, self._sample.collected(trainer.strategy))

    def _at_least_one(self, **values: int) -> None:
        for name, value in values.items():
            if value < 1:
                raise InputError(f"{type(self).__name__} needs {name} of at least 1, not {value}.")
