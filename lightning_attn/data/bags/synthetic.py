"""Bags whose important instances are known, made of a task and a modality: `BagDataModule`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_attn.data.bags.base import Opened, SetDataModule
from lightning_attn.data.bags.confounders import Confounder
from lightning_attn.data.bags.dataset import BagDataset, Bags
from lightning_attn.data.bags.generate import flip_labels, make_bags
from lightning_attn.data.bags.modalities import GaussianClusters, Modality
from lightning_attn.data.bags.sizes import BagSize, NormalSize
from lightning_attn.data.bags.tasks import BagTask, Presence
from lightning_attn.errors import InputError
from lightning_attn.types import DataSchema


class BagDataModule(SetDataModule):
    """Bags made by a seed: the task decides the labels, the modality what instances look like.

    The same arguments give the same bags on every machine. ``evidence`` is 1 on the instances that decide, by the
    convention of the task (`BagTask`), else 0; the data sets also know ``roles`` and ``kinds`` of all instances.
    Classes are equally frequent in each split, no instance stands in two splits, and the order within a bag carries
    nothing.

    Tasks and recipe are reconstructed from Haab et al., XKDD 2022 (arXiv 2207.13018), whose sizes were not available to
    us.

    Example:
        >>> from lightning_attn.data.bags import BagDataModule, Conjunction, Digits
        >>> data = BagDataModule(Conjunction(), Digits(letters=(9, 7)), train_size=200)

    Args:
        task: What decides the label; None means ``Presence()``.
        modality: What the instances are; None means ``GaussianClusters()``.
        size: How many instances a bag has; None means ``NormalSize()``, 10 on average.
        witness_rate: Expected share of A in a bag that holds A, and of B likewise, in [0, 1]; at least one is there.
        train_size: Training bags, at least one a class.
        val_size: Validation bags, at least 1.
        test_size: Test bags, at least 1.
        label_noise: Share of training bags with a wrong label, in [0, 0.5]; their evidence stays that of the right one.
        confounders: What goes along with the label without deciding it, one after another; None for nothing.
        batch_size: Bags of a training batch at most, on each process.
        seed: Decides the bags and the order of training bags.
        num_workers: Processes that make batches beside the main one; 0 is fastest.
        evaluation_batch_size: Bags of a batch in validation, test and prediction; None means ``batch_size``.
        max_instances: Instances of a batch at most; None for no limit.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        task: BagTask | None = None,
        modality: Modality | None = None,
        size: BagSize | None = None,
        witness_rate: float = 0.2,
        train_size: int = 400,
        val_size: int = 200,
        test_size: int = 200,
        label_noise: float = 0.0,
        confounders: Sequence[Confounder] | None = None,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int | None = None,
        max_instances: int | None = None,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, evaluation_batch_size, max_instances)
        self.task = task or Presence()
        self.modality = modality or GaussianClusters()
        self.size = size or NormalSize()
        self.confounders = list(confounders or [])
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for split, count in self.sizes.items():
            least = len(self.task.classes) if split == "train" else 1
            if count < least:
                raise InputError(f"BagDataModule needs a {split}_size of at least {least}, not {count}.")
        for name, value, most in (("witness_rate", witness_rate, 1.0), ("label_noise", label_noise, 0.5)):
            if not 0 <= value <= most:
                raise InputError(f"BagDataModule needs a {name} from 0 to {most:g}, not {value:g}.")
        self.witness_rate = witness_rate
        self.label_noise = label_noise

    def open(self) -> Opened:
        """Make the bags of each split.

        Raises:
            InputError: Task, modality and size do not fit together, or the modality cannot read its files.
        """
        splits = {split: BagDataset(self._bags(split, count)) for split, count in self.sizes.items()}
        schema = DataSchema(
            num_classes=len(self.task.classes),
            class_names=self.task.classes,
            feature_shape=splits["train"].bags.features.shape[1:],
        )
        return Opened(splits, schema, [f"Bags: {self.task.describe()}, {self.modality.describe()}, seed {self.seed}."])

    def _bags(self, split: str, count: int) -> Bags:
        bags = make_bags(
            self.task, self.modality, self.size, self.witness_rate, count, split, self.seed, self.confounders
        )
        if split != "train" or self.label_noise == 0:
            return bags
        return replace(bags, labels=flip_labels(bags.labels, len(self.task.classes), self.label_noise, self.seed))
