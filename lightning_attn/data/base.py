"""What every data module gives to networks, modules and callbacks: `AttentionDataModule`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from pytorch_lightning import LightningDataModule
from pytorch_lightning.loops.progress import _ProcessedTracker
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_attn.data.batching import BucketBatches
from lightning_attn.data.encoded import SplitDataset
from lightning_attn.errors import InputError
from lightning_attn.types import Batch, DataSchema


class AttentionDataModule(LightningDataModule, ABC):
    """Splits named ``train``, ``val`` and ``test``, given as length-bucketed batches.

    A subclass fills the splits in ``prepare_data`` (one process: download, parse, tokenise into a cache) and
    ``setup`` (every process: open the cache). The order of training batches depends on ``seed`` and the epoch alone;
    evaluation gives each example once, on one process, for any number of processes.

    Args:
        batch_size: Examples per training batch, on each process.
        seed: Decides the order of training examples, and whatever is drawn, carved or made; 0 or more.
        num_workers: Processes that make batches beside the main one; 0 is fastest for token ids.
        evaluation_batch_size: Examples per batch in validation, test and prediction; None means ``batch_size``.

    Raises:
        InputError: A batch size is below 1, or the seed is negative.
    """

    def __init__(
        self,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("evaluation_batch_size", evaluation_batch_size)):
            if value is not None and value < 1:
                raise InputError(f"{type(self).__name__} needs {name} of at least 1, not {value}.")
        if seed < 0:
            raise InputError(f"{type(self).__name__} needs seed of at least 0, not {seed}.")
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.evaluation_batch_size = evaluation_batch_size or batch_size

    @property
    @abstractmethod
    def schema(self) -> DataSchema:
        """What a network must know of the data; there after :meth:`setup` or :meth:`restore`."""

    @property
    @abstractmethod
    def splits(self) -> list[str]:
        """Names of the splits there are, among ``train``, ``val`` and ``test``; there after :meth:`setup`."""

    @abstractmethod
    def dataset(self, split: str) -> SplitDataset:
        """The examples of a split.

        Raises:
            InputError: The data have no such split.
        """

    @abstractmethod
    def export(self) -> dict[str, Any]:
        """Plain values that a checkpoint stores, so that it reads new data as these were read.

        Text modules give ``processor``, for :meth:`TextProcessor.from_state`, and ``schema``, for :class:`DataSchema`.
        """

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take vocabulary and class names from :meth:`export` of another run; call it before :meth:`setup`."""

    @abstractmethod
    def describe(self) -> str:
        """How the splits were found, their classes, and what was cut: one line each; there after :meth:`setup`."""

    def word_vectors(self) -> Tensor | None:
        """Pretrained vectors for the vocabulary, shape ``(V, E)``, NaN where a word has none; None if not asked."""
        return None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of ``train``, as many on each process."""
        loader, batches = self._loader("train", self.batch_size, shuffle=True)
        if self.trainer is not None:
            # Lightning sets the epoch after it has made the first iterator, too late for workers that fetch ahead,
            # and in an epoch that is resumed in its middle it counts the batches that are done but does not skip them.
            # Asked at the last moment: a schedule that counts the steps makes the loader before the place is known.
            loop = self.trainer.fit_loop

            def place() -> tuple[int, int]:
                progress = loop.epoch_loop.batch_progress
                done = cast(_ProcessedTracker, progress.current).processed
                epoch = cast(_ProcessedTracker, loop.epoch_progress.current).processed
                return epoch, 0 if progress.is_last_batch else done

            batches.resume(place)
        return loader

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Each example of ``val`` once; nothing if training goes without a validation split."""
        if "val" not in self.splits and self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            return []
        return self._loader("val", self.evaluation_batch_size)[0]

    def test_dataloader(self) -> DataLoader[Batch]:
        """Each example of ``test`` once."""
        return self._loader("test", self.evaluation_batch_size)[0]

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Each example of ``test`` once; ``lightning explain`` is for texts without a label."""
        return self.test_dataloader()

    def _loader(self, split: str, batch_size: int, shuffle: bool = False) -> tuple[DataLoader[Batch], BucketBatches]:
        dataset = self.dataset(split)
        batches = BucketBatches(
            dataset.lengths,
            batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=0 if self.trainer is None else self.trainer.global_rank,
            world_size=1 if self.trainer is None else self.trainer.world_size,
        )
        loader = _Loader(
            dataset,
            sampler=batches,  # a "row" for the loader is a list of rows for the data set
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
        )
        return loader, batches


class _Loader(DataLoader[Batch]):
    """Tells Lightning, which would warn otherwise, that an epoch may be resumed in its middle.

    There is nothing to store: ``train_dataloader`` finds the place from the progress of the Trainer.
    """

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def _as_it_is(batch: Any) -> Any:
    return batch
