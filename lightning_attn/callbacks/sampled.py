"""A callback that measures or shows something of the same examples at every evaluation: `SampledCallback`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from lightning_attn.callbacks.sampling import ExampleSample
from lightning_attn.callbacks.timing import measures_now, network_of
from lightning_attn.errors import InputError
from lightning_attn.types import Batch

Split = Literal["val", "test"]
SPLITS: tuple[Split, ...] = ("val", "test")


class SampledCallback(Callback, ABC):
    """Collects a sample of the validation or test set, the same each time, and hands it to :meth:`evaluate`.

    Of several loaders the first is sampled; the sanity check is not measured.

    Args:
        every_n_epochs: Validation epochs from one measurement to the next; validate and test always measure.
        max_examples: Size of the sample, at least 1, drawn at random once; None takes every example.
        seed: Another seed, other examples.
        splits: Where to measure, of ``val`` and ``test``.

    Raises:
        InputError: A number is below 1, or a split is unknown.
    """

    def __init__(
        self, every_n_epochs: int, max_examples: int | None, seed: int, splits: Sequence[Split] = SPLITS
    ) -> None:
        self._at_least_one(every_n_epochs=every_n_epochs, max_examples=max_examples)
        self._known("split", splits, SPLITS)
        self.every_n_epochs = every_n_epochs
        self.max_examples = max_examples
        self.seed = seed
        self.splits = tuple(splits)
        self._sample = ExampleSample(max_examples, seed)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that what was asked for is possible.

        Raises:
            InputError: The Trainer has two of these callbacks, or the module has no attention network.
        """
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        if sum(isinstance(callback, type(self)) for callback in callbacks) > 1:
            raise InputError(f"Two {type(self).__name__}s would log under the same names; leave one of them out.")
        network_of(pl_module)

    @abstractmethod
    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Measure or show the sample's examples of this process, padded; every process is called."""

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first batch of every evaluation, the sanity check too: forget the examples of the last one."""
        self._sample.clear()

    def keep(self, split: Split, pl_module: LightningModule, batch: Batch) -> None:
        """Take what the sample needs of a batch."""
        self._sample.add(batch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See :meth:`start`."""
        self.start(trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See :meth:`start`."""
        self.start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """See :meth:`keep`."""
        if dataloader_idx == 0 and self._measures("val", trainer):
            self.keep("val", pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """See :meth:`keep`."""
        if dataloader_idx == 0 and self._measures("test", trainer):
            self.keep("test", pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See :meth:`evaluate`."""
        self._finish("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See :meth:`evaluate`."""
        self._finish("test", trainer, pl_module)

    def _finish(self, split: Split, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._measures(split, trainer):
            batches = self._sample.collected(trainer.strategy)
            self._sample.clear()
            self.evaluate(split, trainer, pl_module, batches)

    def _measures(self, split: Split, trainer: Trainer) -> bool:
        return split in self.splits and measures_now(trainer, self.every_n_epochs)

    def _at_least_one(self, **numbers: int | None) -> None:
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise InputError(f"{type(self).__name__} needs {name} of at least 1, not {value}.")

    def _known(self, kind: str, given: Sequence[str], known: Sequence[str]) -> None:
        if unknown := [name for name in given if name not in known]:
            raise InputError(
                f"{type(self).__name__} knows no {kind} {unknown[0]!r}; the {kind}s are {', '.join(known)}."
            )
