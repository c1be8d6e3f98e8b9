"""Images of digits: `Digits`, which scikit-learn brings along, and `MNIST`, from its files."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_attn.data.bags.modalities.base import PooledModality, divide, stream
from lightning_attn.data.encoded import Array
from lightning_attn.data.files import open_binary
from lightning_attn.errors import InputError

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
UNSIGNED_BYTE = 8  # type of the values of an idx file
#: md5 of MNIST's files. Of the files themselves: there are archives with the same content and other checksums.
PUBLISHED = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
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

        digits = load_digits()
        rows = divide(digits.target, seed)[split]
        return (digits.images[rows, None] / 16).astype(np.float32), digits.target[rows]

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
            rows_of_split = held if split == "val" else ~held
            images, labels = images[rows_of_split], labels[rows_of_split]
        return images[:, None].astype(np.float32) / np.float32(255), labels.astype(np.int64)

    def describe(self) -> str:
        """With the letters, and whether the files are those that were published."""
        for part in MNIST_FILES:
            self._images(part)
        origin = "the published files" if self._md5 == PUBLISHED else "not the published files of MNIST"
        return f"MNIST ({origin}; A is {self.letters[0]}, B is {self.letters[1]})"

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


def unpacked(path: Path) -> bytes:
    """The content of a file; ``.gz`` is unpacked.

    Raises:
        InputError: It is damaged.
    """
    try:
        with open_binary(path) as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path} is damaged: it cannot be unpacked.") from None


def parse_idx(content: bytes, dims: int, path: Path) -> Array:
    """Unsigned bytes in ``dims`` dimensions.

    Big-endian: two zero bytes, the type (8), the number of dimensions, each dimension in 32 bits, and the values.

    Args:
        content: What the file holds.
        dims: How many dimensions it should have.
        path: Its name, for messages.

    Raises:
        InputError: The file is damaged, or holds something else.
    """
    header = 4 + 4 * dims
    if len(content) < header or content[:4] != bytes((0, 0, UNSIGNED_BYTE, dims)):
        raise InputError(f"{path} is no idx file of bytes in {dims} dimensions: it begins with {content[:4].hex(' ')}.")
    shape = struct.unpack(f">{dims}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise InputError(
            f"{path} should hold {math.prod(shape):,} values ({' x '.join(map(str, shape))}), but holds "
            f"{len(content) - header:,}: it is damaged."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
