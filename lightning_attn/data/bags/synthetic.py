"""Bags whose important instances are known, made of a task, a modality and a size: `BagDataModule`, `make_bags`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from typing_extensions import override

from lightning_attn.data.bags.base import Opened, SetDataModule
from lightning_attn.data.bags.confounders import Confounder, Draft
from lightning_attn.data.bags.dataset import BagDataset, Bags
from lightning_attn.data.bags.modalities import GaussianClusters, Modality
from lightning_attn.data.bags.modalities.base import stream
from lightning_attn.data.bags.tasks import BagTask, Presence, Role
from lightning_attn.data.encoded import Array, offsets_of
from lightning_attn.errors import InputError
from lightning_attn.types import DataSchema


class BagSize(ABC):
    """Draws the sizes of bags, whatever their labels.

    Attributes:
        least: The smallest size there can be.
    """

    least: int

    @abstractmethod
    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Sizes of ``count`` bags, shape ``(count,)``, int64, each at least :attr:`least`."""


class FixedSize(BagSize):
    """All bags are of one size.

    Args:
        instances: That size, at least 1.

    Raises:
        InputError: It is below 1.
    """

    def __init__(self, instances: int = 10) -> None:
        if instances < 1:
            raise InputError(f"FixedSize needs instances of at least 1, not {instances}.")
        self.least = instances

    @override
    def draw(self, generator: np.random.Generator, count: int) -> Array:
        return np.full(count, self.least, dtype=np.int64)


class NormalSize(BagSize):
    """Sizes are normal numbers, rounded, and never below the least (Ilse et al. 2018: mean 10, standard deviation 2).

    Args:
        mean: Mean size, at least ``least``.
        sd: Standard deviation, 0 or more.
        least: Smaller sizes become this, at least 1.

    Raises:
        InputError: An argument is out of its range.
    """

    def __init__(self, mean: float = 10.0, sd: float = 2.0, least: int = 4) -> None:
        if least < 1 or sd < 0 or mean < least:
            raise InputError(
                f"NormalSize needs least >= 1, sd >= 0 and mean >= least, not least {least}, sd {sd:g}, mean {mean:g}."
            )
        self.mean = mean
        self.sd = sd
        self.least = least

    @override
    def draw(self, generator: np.random.Generator, count: int) -> Array:
        sizes = np.rint(generator.normal(self.mean, self.sd, size=count)).astype(np.int64)
        return np.maximum(sizes, self.least)


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
        train_size: Training bags, at least one per class.
        val_size: Validation bags, at least 1.
        test_size: Test bags, at least 1.
        label_noise: Share of training bags with a wrong label, in [0, 0.5]; their evidence stays that of the right one.
        confounders: What goes along with the label without deciding it, one after another; None for nothing.
        **kwargs: See `SetDataModule`; ``seed`` decides the bags, too.

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
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

    @override
    def open(self) -> Opened:
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


def make_bags(
    task: BagTask,
    modality: Modality,
    size: BagSize,
    witness_rate: float,
    count: int,
    split: str,
    seed: int,
    confounders: Sequence[Confounder] = (),
) -> Bags:
    """Bags of one split, the same on every machine.

    The size of a bag is drawn first; then two binomial numbers of so many trials at the witness rate, which the task
    turns into numbers of A and of B; the rest is background, each instance of any background kind with equal
    probability. The instances stand in random order, and their features are drawn last, so order carries nothing.

    Args:
        task: Decides labels and roles.
        modality: Gives the features.
        size: Gives the sizes.
        witness_rate: Expected share of A in a bag that holds A, and of B likewise, before it is moved to what the bag's
            class allows, in [0, 1].
        count: Number of bags B.
        split: ``train``, ``val`` or ``test``: other bags, from other instances.
        seed: Another seed, other bags.
        confounders: Applied one after another.

    Raises:
        InputError: Bags are too small for the task, or the modality has too few kinds.
    """
    if size.least < task.least:
        raise InputError(
            f"{task.describe()} needs bags of at least {task.least} instances, but the size may be {size.least}."
        )
    ordinary, reserved = _background(task, modality, confounders)
    generator = stream(seed, "bags", split)
    sizes = size.draw(generator, count)
    drawn = generator.binomial(sizes[:, None], witness_rate, size=(count, 2))
    counts = task.counts(sizes, drawn, *task.plan(count))
    labels = task.label(counts)

    bag = np.repeat(np.arange(count), sizes)
    place = np.arange(len(bag)) - offsets_of(sizes)[bag]
    ends = counts.cumsum(axis=1)[bag]
    letter = (place[:, None] >= ends).sum(axis=1)  # 0 for A, 1 for B, 2 for background
    kinds = np.where(letter < 2, letter, ordinary[generator.integers(len(ordinary), size=len(bag))])
    draft = Draft(kinds, letter == 2, bag, labels, ordinary, split)
    for number, (confounder, own) in enumerate(zip(confounders, reserved, strict=True)):
        draft.kinds = confounder.kinds(draft, own, stream(seed, f"confounder {number}", split))
    shuffled = np.lexsort((generator.random(len(bag)), bag))  # within each bag
    letter, kinds = letter[shuffled], draft.kinds[shuffled]

    roles = np.where(letter < 2, task.roles(counts)[bag, np.minimum(letter, 1)], Role.NEUTRAL).astype(np.int8)
    features, source = modality.instances(kinds, split, seed)
    return Bags(
        features=features,
        offsets=offsets_of(sizes),
        labels=labels,
        evidence=np.isin(roles, [int(role) for role in task.decisive]).astype(np.float32),
        source=source,
        roles=roles,
        kinds=kinds,
    )


def flip_labels(labels: Array, classes: int, share: float, seed: int) -> Array:
    """Labels of which a share, rounded to whole bags, is exchanged for another class, any with equal probability."""
    generator = stream(seed, "label noise", "train")
    rows = generator.choice(len(labels), round(share * len(labels)), replace=False)
    flipped: Array = labels.copy()
    flipped[rows] = (labels[rows] + generator.integers(1, classes, size=len(rows))) % classes
    return flipped


def _background(task: BagTask, modality: Modality, confounders: Sequence[Confounder]) -> tuple[Array, list[Array]]:
    """The kinds of ordinary background, and those that each confounder has for itself, the last ones."""
    taken = sum(confounder.reserved for confounder in confounders)
    needed = task.letters + 1 + taken
    if modality.num_kinds < needed:
        raise InputError(
            f"{task.describe()} needs {needed} kinds of instances ({task.letters} that decide, 1 background"
            f"{f', {taken} for confounders' if taken else ''}), but {type(modality).__name__} has {modality.num_kinds}."
        )
    kinds = np.arange(task.letters, modality.num_kinds)
    ends = np.cumsum([len(kinds) - taken, *(confounder.reserved for confounder in confounders)])
    ordinary, *reserved = np.split(kinds, ends[:-1])
    return ordinary, reserved
