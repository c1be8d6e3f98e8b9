"""Callbacks that look at the same examples at every evaluation: `SampledCallback`, its `ExampleSample`, and helpers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lightning_attn.data.base import AttentionDataModule
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.randomness import example_keys
from lightning_attn.types import Batch

T = TypeVar("T")
Split = Literal["val", "test"]
SPLITS: tuple[Split, ...] = ("val", "test")
_ROWS = 64  # of a batch of training examples
_NEVER = torch.iinfo(torch.int64).max


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
        """Check that the module can be measured.

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

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start(trainer, pl_module)

    @override
    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start(trainer, pl_module)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0 and self._measures("val", trainer):
            self.keep("val", pl_module, batch)

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0 and self._measures("test", trainer):
            self.keep("test", pl_module, batch)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish("val", trainer, pl_module)

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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

    def _known(self, kind: str, names: Sequence[str], choices: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in choices]:
            raise InputError(
                f"{type(self).__name__} knows no {kind} {unknown[0]!r}; the {kind}s are {', '.join(choices)}."
            )


class ExampleSample:
    """Keeps the ``size`` examples of an evaluation epoch whose rows come first in a random order of all rows.

    The order is a hash of ``Batch.index``: it depends on neither the length of the data set, nor the order of the
    batches, nor the number of processes, and a file that is sorted by class gives all its classes. Processes talk
    once per epoch, in :meth:`collected`.

    Args:
        size: Examples to keep, on all processes together; None keeps all.
        seed: Another seed, other examples.
    """

    def __init__(self, size: int | None, seed: int = 0) -> None:
        self.size = size
        self.seed = seed
        self._parts: list[tuple[Batch, Tensor]] = []
        self._keys: Tensor | None = None

    def clear(self) -> None:
        """Forget the examples of the last epoch."""
        self._parts, self._keys = [], None

    def add(self, batch: Batch) -> None:
        """Keep those rows of a batch that may belong to the sample; a row that is there already is not kept again."""
        # Normal tensors, which may be differentiated later, also where Lightning evaluates in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            keys = example_keys(batch.index.clone(), self.seed)
            kept = keys.new_empty(0) if self._keys is None else self._keys
            new = ~torch.isin(keys, kept)
            if self.size is not None and len(kept) >= self.size:
                new &= keys < kept[-1]
            rows = new.nonzero().squeeze(-1)
            if len(rows):
                self._parts.append((batch.apply(torch.clone).select(rows), keys[rows]))
                self._keys = torch.unique(torch.cat([kept, keys[rows]]))[: self.size]

    def collected(self, strategy: Strategy | None = None) -> list[Batch]:
        """The sample's examples on this process; every process must call it.

        Args:
            strategy: The Trainer's; None where this process is the only one.

        Returns:
            The sample's part of each batch that was added, padded, but without columns that are padding only. How
            examples are grouped does not depend on the number of processes if the batches do not: floating-point
            results are then the same to the last bit.
        """
        last = _NEVER if self.size is None else self._last_key(strategy)
        selected = [_trimmed(part.select((keys <= last).nonzero().squeeze(-1)).padded()) for part, keys in self._parts]
        return [part for part in selected if len(part)]

    def _last_key(self, strategy: Strategy | None) -> int:
        """Key of the sample's last example on any process."""
        assert self.size is not None
        if strategy is None:
            return _NEVER if self._keys is None else int(self._keys[-1])
        mine = torch.full((self.size,), _NEVER, device=strategy.root_device)
        if self._keys is not None:
            mine[: len(self._keys)] = self._keys
        everywhere = torch.unique(strategy.all_gather(mine))[: self.size]
        return int(everywhere[-1])


def _trimmed(batch: Batch) -> Batch:
    length = int(batch.valid.sum(dim=1).max()) if len(batch) else 0
    return batch.shortened(length)


def measures_now(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether this evaluation is one to measure: each n-th epoch of fit, and always in validate and test.

    Never during the sanity check: media logged there would look like those of epoch 0.
    """
    if trainer.sanity_checking:
        return False
    return trainer.state.fn != TrainerFn.FITTING or (trainer.current_epoch + 1) % every_n_epochs == 0


def moment_of(trainer: Trainer) -> str:
    """``epoch 3``, or ``validate`` or ``test`` of a network that is not being trained."""
    state = trainer.state.fn
    return f"epoch {trainer.current_epoch}" if state in (None, TrainerFn.FITTING) else state.value


def network_of(pl_module: LightningModule) -> AttentionNetwork:
    """The network that ``pl_module`` trains.

    Raises:
        InputError: It has none.
    """
    network = getattr(pl_module, "network", None)
    if not isinstance(network, AttentionNetwork):
        raise InputError(
            f"{type(pl_module).__name__} has no attribute `network` of type AttentionNetwork, which the attention "
            "callbacks measure; use AttentionClassifier, or set self.network."
        )
    return network


def gathered(trainer: Trainer, items: Sequence[T]) -> list[T]:
    """The items of all processes, in the order of the processes; every process must call it."""
    if trainer.world_size == 1:
        return list(items)
    parts: list[list[T]] = [[] for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def training_batches(trainer: Trainer, network: AttentionNetwork, count: int, seed: int) -> list[Batch]:
    """A sample of the training examples, the same on every process, as the network attends to them.

    Args:
        trainer: Whose data module has them.
        network: On the device where they are wanted.
        count: How many at most.
        seed: Another seed, other examples.

    Returns:
        Padded batches, examples of similar lengths together; empty where the data module is not of this package, or has
        no training split.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, AttentionDataModule) or "train" not in data.splits:
        return []
    dataset = data.dataset("train")
    rows = example_keys(torch.arange(len(dataset)), seed).argsort()[:count]
    rows = rows[torch.as_tensor(dataset.lengths)[rows].argsort(stable=True)]  # little padding
    device = next(network.parameters()).device
    return [network.attendable(dataset[part.tolist()].to(device).padded()) for part in torch.split(rows, _ROWS)]
