"""Images of digits: `Digits`, which scikit-learn brings along, and `MNIST`, from its files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_attn.data.bags.modalities.base import PooledModality, divide
from lightning_attn.data.bags.modalities.idx import PUBLISHED, parse_idx, unpacked
from lightning_attn.data.bags.streams import stream
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
VAL_SHARE = 1 / 6  # of the training images: as many as there are test images


class Digits(PooledModality):
    """Scans of handwritten digits, shape ``(1, 8, 8)``, in [0, 1]: 1,797 images that come with scikit-learn.

    Of each digit, three fifths of the images are for training, a fifth each for validation and test, drawn by the seed.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49.

    Args:
        letters: The digits that tasks call A and B; the other eight are background, and so is B in a task without B.

    Raises:
        InputError: They are not two different numbers from 0 to 9.
    """

    def __init__(self, letters: Sequence[int] = (9, 7)) -> None:
        super().__init__(_digits(letters, self))

    def names(self) -> list[str]:
        """0 to 9."""
        return [str(digit) for digit in range(10)]

    def pool(self, split: str, seed: int) -> tuple[Array, Array]:
        """The images of a split."""
        from sklearn.datasets import load_digits  # a second to import

        found = load_digits()
        rows = divide(found.target, seed)[split]
        return (found.images[rows, None] / 16).astype(np.float32), found.target[rows]

    def describe(self) -> str:
        """With the letters."""
        return f"digits (A is {self.letters[0]}, B is {self.letters[1]})"


class MNIST(PooledModality):
    """The 70,000 handwritten digits of MNIST, shape ``(1, 28, 28)``, in [0, 1], from the original idx files.

    Test bags take the test images; a sixth of the training images of each digit, drawn by the seed, is for validation.
    Other data sets in the same files (Fashion-MNIST, KMNIST) work as well; the notes say whether it is MNIST.

    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition, Proceedings of the IEEE 86(11).

    Args:
        path: Folder of ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz``.
        letters: The digits that tasks call A and B; the other eight are background, and so is B in a task without B.

    Raises:
        InputError: The letters are not two different numbers from 0 to 9.
    """

    def __init__(self, path: str | Path, letters: Sequence[int] = (9, 7)) -> None:
        super().__init__(_digits(letters, self))
        self.path = Path(path).expanduser()
        self._read: dict[str, tuple[Array, Array]] = {}
        self._md5: dict[str, str] = {}

    def names(self) -> list[str]:
        """0 to 9."""
        return [str(digit) for digit in range(10)]

    def pool(self, split: str, seed: int) -> tuple[Array, Array]:
        """The images of a split.

        Raises:
            InputError: A file is missing, damaged, or not what its name says.
        """
        images, labels = self._images("test" if split == "test" else "train")
        if split != "test":
            held = np.zeros(len(labels), dtype=bool)
            generator = stream(seed, "pools")
            for digit in range(10):
                rows = generator.permutation(np.flatnonzero(labels == digit))
                held[rows[: round(VAL_SHARE * len(rows))]] = True
            chosen = held if split == "val" else ~held
            images, labels = images[chosen], labels[chosen]
        return images[:, None].astype(np.float32) / np.float32(255), labels.astype(np.int64)

    def describe(self) -> str:
        """With the letters, and whether the files are those that were published."""
        for part in MNIST_FILES:
            self._images(part)
        known = "the published files" if self._md5 == PUBLISHED else "not the published files of MNIST"
        return f"MNIST ({known}; A is {self.letters[0]}, B is {self.letters[1]})"

    def _file(self, name: str) -> Path:
        for candidate in (self.path / f"{name}.gz", self.path / name):
            if candidate.is_file():
                return candidate
        raise InputError(
            f"There is no {name}.gz in {self.path}: path should be the folder with the four files of MNIST."
        )

    def _images(self, part: str) -> tuple[Array, Array]:
        if part not in self._read:
            names = MNIST_FILES[part]
            images, labels = (self._array(name, dims) for name, dims in zip(names, (3, 1), strict=True))
            if len(images) != len(labels):
                raise InputError(
                    f"{self._file(names[0])} holds {len(images):,} images, but {self._file(names[1])} {len(labels):,} "
                    "labels; they should be as many."
                )
            if labels.max(initial=0) > 9:
                raise InputError(
                    f"{self._file(names[1])} holds the label {labels.max()}; labels should be from 0 to 9."
                )
            self._read[part] = images, labels
        return self._read[part]

    def _array(self, name: str, dims: int) -> Array:
        path = self._file(name)
        content = unpacked(path)
        self._md5[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return parse_idx(content, dims, path)


def _digits(letters: Sequence[int], owner: object) -> tuple[str, ...]:
    if any(not 0 <= letter <= 9 for letter in letters):
        raise InputError(f"{type(owner).__name__} needs letters from 0 to 9, not {list(letters)}.")
    return tuple(str(letter) for letter in letters)
