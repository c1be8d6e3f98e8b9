"""Pairs of handwritten digits, one of which decides, cut into patches: `DigitPairsDataModule`."""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import override

from lightning_attn.data.bags.base import Opened, SetDataModule
from lightning_attn.data.bags.dataset import BagDataset, Bags
from lightning_attn.data.bags.modalities import Digits, PooledModality
from lightning_attn.data.bags.modalities.base import stream
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError
from lightning_attn.types import DataSchema

#: A patch has ink where its darkest pixel has: half of full black, so that the blurred rim of a stroke is none.
INK = 0.5


class DigitPairsDataModule(SetDataModule):
    """Two digits side by side, one of them A or B, which is the label, the other of another class: a distractor.

    The decisive digit stands left or right at random. The picture is cut into square patches, the instances; each has
    its pixels, row by row, and its place, see :meth:`DataSchema.cell`. ``evidence`` is 1 on patches with ink of the
    decisive digit, else 0. Which patches a selector takes can encode the label in their places: the setting in which
    L2X explains digits.

    Classes are equally frequent in each split, no image stands in two splits, and the same arguments give the same
    pairs on every machine. Within a split an image may stand in several pairs.

    Source: Chen et al., ICML 2018, https://arxiv.org/abs/1802.07814, select patches of a 3 or an 8 of MNIST; the
    distractor, with which the evidence is known, is ours.

    Example:
        >>> from lightning_attn.data.bags import Digits, DigitPairsDataModule
        >>> data = DigitPairsDataModule(Digits(letters=(3, 8)), patch=2, train_size=200)

    Args:
        modality: Images of digits: ``MNIST``, or ``Digits``, which come with scikit-learn; its letters decide, and give
            the classes their names. None means ``Digits(letters=(3, 8))``.
        patch: Pixels of a patch on each side; MNIST in patches of 4 has 7 rows and 14 columns of them.
        train_size: Training pairs, at least 2.
        val_size: Validation pairs, at least 1.
        test_size: Test pairs, at least 1.
        **kwargs: See `SetDataModule`; ``seed`` decides the pairs, too.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        modality: PooledModality | None = None,
        patch: int = 4,
        train_size: int = 4000,
        val_size: int = 1000,
        test_size: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.modality = modality or Digits(letters=(3, 8))
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for name, value in (("patch", patch), *((f"{split}_size", count) for split, count in self.sizes.items())):
            if value < (least := 2 if name == "train_size" else 1):
                raise InputError(f"DigitPairsDataModule needs {name} of at least {least}, not {value}.")
        self.patch = patch

    @override
    def open(self) -> Opened:
        if self.modality.num_kinds < 3:
            raise InputError(
                f"DigitPairsDataModule takes its distractors from a third class, but {self.modality.describe()} has "
                f"only {', '.join(self.modality.letters)}."
            )
        splits, grid = {}, (0, 0)
        for split, count in self.sizes.items():
            bags, grid = self._pairs(split, count)
            splits[split] = BagDataset(bags)
        schema = DataSchema(
            num_classes=2,
            class_names=self.modality.letters,
            feature_shape=splits["train"].bags.features.shape[1:],
            grid=grid,
        )
        note = (
            f"Pairs of {self.modality.describe()}, one decides; {grid[0]} x {grid[1]} patches of {self.patch} x "
            f"{self.patch} pixels, seed {self.seed}."
        )
        return Opened(splits, schema, [note])

    def _pairs(self, split: str, count: int) -> tuple[Bags, tuple[int, int]]:
        """The pairs of a split, and their rows and columns of patches."""
        generator = stream(self.seed, "digit pairs", split)
        labels = generator.permutation(np.arange(count) % 2)
        others = generator.integers(2, self.modality.num_kinds, size=count)
        on_the_left = generator.random(count) < 0.5
        images, source = self.modality.instances(np.concatenate([labels, others]), split, self.seed)
        self._check(images)
        decisive, distractor = images[source[:count], 0], images[source[count:], 0]
        left = on_the_left[:, None, None]
        picture = np.concatenate([np.where(left, decisive, distractor), np.where(left, distractor, decisive)], axis=2)
        pixels, grid = cut(picture, self.patch)
        rows, columns = grid
        row, column = np.divmod(np.arange(rows * columns), columns)
        place = np.stack([(row + 1) / rows, (column + 1) / columns], axis=-1).astype(np.float32)
        decides = (column < columns // 2) == on_the_left[:, None]
        evidence = decides & (pixels.max(axis=2) >= INK)
        features = np.concatenate([pixels, np.broadcast_to(place, (count, *place.shape))], axis=2)
        bags = Bags(
            features=features.reshape(count * rows * columns, -1),
            offsets=np.arange(count + 1) * rows * columns,
            labels=labels,
            evidence=evidence.reshape(-1).astype(np.float32),
        )
        return bags, grid

    def _check(self, images: Array) -> None:
        if images.ndim != 4 or images.shape[1] != 1:
            raise InputError(
                f"DigitPairsDataModule cuts images of shape (1, height, width) into patches, but "
                f"{self.modality.describe()} has instances of shape {images.shape[1:]}; use MNIST or Digits."
            )
        height, width = images.shape[2:]
        if height % self.patch or width % self.patch:
            raise InputError(
                f"Patches of {self.patch} x {self.patch} pixels do not cover images of {height} x {width}; patch "
                "should divide both."
            )


def cut(pictures: Array, patch: int) -> tuple[Array, tuple[int, int]]:
    """Pictures in patches, row by row.

    Args:
        pictures: Shape ``(B, height, width)``; ``patch`` divides both.
        patch: Pixels of a patch on each side.

    Returns:
        Pixels of the patches, row by row too, shape ``(B, rows * columns, patch ** 2)``; rows and columns.
    """
    count, height, width = pictures.shape
    rows, columns = height // patch, width // patch
    parts = pictures.reshape(count, rows, patch, columns, patch).transpose(0, 1, 3, 2, 4)
    return parts.reshape(count, rows * columns, patch * patch), (rows, columns)
