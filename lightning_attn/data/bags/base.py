"""What all data modules of bags share: `SetDataModule`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_attn.data.bags.dataset import SPLITS, BagBatches, BagDataset
from lightning_attn.data.base import AttentionDataModule, _as_it_is, _Loader
from lightning_attn.data.labels import count_classes
from lightning_attn.errors import InputError
from lightning_attn.runs.checkpoint_file import read_schema, stored_part
from lightning_attn.types import Batch, DataSchema


@dataclass
class Opened:
    """Bags that are ready for use.

    Attributes:
        splits: The bags of each split there is.
        schema: Their classes, and the shape of an instance.
        notes: Sentences for the user on where they are from.
    """

    splits: dict[str, BagDataset]
    schema: DataSchema
    notes: list[str] = field(default_factory=list)


class SetDataModule(AttentionDataModule):
    """Gives packed batches of bags. A subclass says where bags come from: :meth:`open`.

    Training batches mix large and small bags; see `BagBatches`.

    Args:
        max_instances: Instances of a batch at most, so that a batch of large bags has fewer of them; None for no limit.
        **kwargs: See `AttentionDataModule`; an example is a bag.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(self, max_instances: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_instances is not None and max_instances < 1:
            raise InputError(f"{type(self).__name__} needs max_instances of at least 1, not {max_instances}.")
        self.max_instances = max_instances
        self._opened: Opened | None = None
        self._restored: DataSchema | None = None

    @abstractmethod
    def open(self) -> Opened:
        """The bags of each split. Called once, by :meth:`setup`, on every process.

        Raises:
            InputError: They cannot be had.
        """

    @property
    @override
    def schema(self) -> DataSchema:
        return self._ready.schema if self._restored is None else self._restored

    @property
    @override
    def splits(self) -> list[str]:
        return [split for split in SPLITS if split in self._ready.splits]

    @override
    def dataset(self, split: str) -> BagDataset:
        if split not in self.splits:
            raise InputError(f"The data have no {split} split; they have {', '.join(self.splits)}.")
        return self._ready.splits[split]

    def export(self) -> dict[str, Any]:
        """``schema``: its values. A checkpoint stores it."""
        values = asdict(self.schema)
        return {"schema": {**values, "class_names": list(self.schema.class_names)}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take class names from :meth:`export` of another run; call it before :meth:`setup`.

        Raises:
            InputError: The run was not one on bags.
        """
        values = stored_part(state, "schema")
        if values.get("feature_shape") is None:
            raise InputError("The checkpoint was trained on texts, and these data are bags; give it texts.")
        self._restored = read_schema(values)
        self._opened = None

    def describe(self) -> str:
        """Where the bags are from, and how many there are of each class and size; one line each."""
        names = self.schema.class_names
        return "\n".join(self._ready.notes + [_summary(split, self.dataset(split), names) for split in self.splits])

    def setup(self, stage: str | None = None) -> None:
        """Have the bags. The same for every stage; what is there stays.

        Raises:
            InputError: Instances or classes are others than those that a checkpoint was trained on.
        """
        if self._opened is not None:
            return
        opened = self.open()
        if self._restored is not None:
            for what, expected, actual in (
                ("instances of shape", self._restored.feature_shape, opened.schema.feature_shape),
                ("the classes", self._restored.class_names, opened.schema.class_names),
                ("a grid of patches", self._restored.grid, opened.schema.grid),
            ):
                if expected != actual:
                    raise InputError(f"The checkpoint was trained on {what} {expected}, but these data have {actual}.")
        self._opened = opened
        rank_zero_info(self.describe())

    @property
    def _ready(self) -> Opened:
        if self._opened is None:
            raise InputError(f"{type(self).__name__} has no data yet: call prepare_data() and setup() first.")
        return self._opened

    @override
    def _loader(self, split: str, batch_size: int, shuffle: bool = False) -> tuple[DataLoader[Batch], BagBatches]:
        dataset = self.dataset(split)
        batches = BagBatches(
            dataset.lengths,
            batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=0 if self.trainer is None else self.trainer.global_rank,
            world_size=1 if self.trainer is None else self.trainer.world_size,
            max_instances=self.max_instances,
        )
        loader = _Loader(dataset, sampler=batches, batch_size=None, collate_fn=_as_it_is, num_workers=self.num_workers)
        return loader, batches


def _summary(split: str, dataset: BagDataset, names: tuple[str, ...]) -> str:
    sizes = dataset.lengths
    counts = count_classes(dataset.labels, names)
    shares = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    text = f"{split}: {len(dataset):,} bags ({shares}) of {sizes.min():,} to {sizes.max():,} instances"
    if (evidence := dataset.evidence) is not None:
        judged = evidence[~np.isnan(evidence)]
        if len(judged):
            text += f", {100 * (judged > 0).mean():.1f} % of them evidence"
    return f"{text}."
