"""Named arrays in a file, read a part at a time: `open_arrays` for .npz and .h5."""

from __future__ import annotations

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from lightning_attn.data.bags.store import rows_in_chunk
from lightning_attn.data.encoded import Array
from lightning_attn.data.progress import track
from lightning_attn.errors import InputError


class ArrayFile(ABC):
    """Named arrays.

    Args:
        path: Where they are, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """What there is."""

    @abstractmethod
    def read(self, name: str) -> Array:
        """An array, whole; strings as they are.

        Raises:
            InputError: It holds Python objects.
        """

    @abstractmethod
    def parts(self, name: str) -> Iterator[Array]:
        """An array, some rows at a time.

        Raises:
            InputError: It holds something else than numbers, or has no rows.
        """

    def _numbers(self, name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
        if kind.kind not in "fiub":
            raise InputError(f"{self.path}: {name} holds {kind}; it should hold numbers, all instances of equal width.")
        if len(shape) < 2:
            raise InputError(f"{self.path}: {name} has the shape {shape}; it should be one row an instance.")


class NpzFile(ArrayFile):
    """A file that ``numpy.savez`` or ``savez_compressed`` wrote; nothing is unpickled.

    Args:
        path: Where it is.
        archive: The open file.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        super().__init__(path)
        self._archive = archive

    @property
    def names(self) -> list[str]:
        """The members, without ``.npy``."""
        return [name.removesuffix(".npy") for name in self._archive.namelist()]

    def read(self, name: str) -> Array:
        """Through NumPy."""
        with self._archive.open(f"{name}.npy") as file:
            try:
                return np.asarray(npy.read_array(file, allow_pickle=False))
            except ValueError as error:
                raise InputError(f"{self.path}: {name} cannot be read ({error}).") from None

    def parts(self, name: str) -> Iterator[Array]:
        """Row by row from the stream; an array in Fortran order, whose rows do not stand together, comes whole."""
        with self._archive.open(f"{name}.npy") as file:
            version = npy.read_magic(file)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, kind = header(file)
            self._numbers(name, kind, shape)
            if fortran:
                yield self.read(name)
                return
            step, width = rows_in_chunk(shape[1:]), int(np.prod(shape[1:]))
            for start in track(range(0, shape[0], step), f"Reading {self.path.name}", total=shape[0]):
                count = min(step, shape[0] - start)
                content = file.read(count * width * kind.itemsize)
                yield np.frombuffer(content, dtype=kind).reshape(count, *shape[1:])


class H5File(ArrayFile):
    """An HDF5 file.

    Args:
        path: Where it is.
        file: The open ``h5py.File``.
    """

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(path)
        self._file = file

    @property
    def names(self) -> list[str]:
        """The data sets at the top."""
        return [name for name, item in self._file.items() if hasattr(item, "shape")]

    def read(self, name: str) -> Array:
        """Strings are decoded."""
        found = self._file[name]
        return np.asarray(found.asstr()[...].astype(str) if found.dtype.kind in "OS" else found[...])

    def parts(self, name: str) -> Iterator[Array]:
        """Slices."""
        found = self._file[name]
        self._numbers(name, found.dtype, found.shape)
        step = rows_in_chunk(found.shape[1:])
        for start in track(range(0, len(found), step), f"Reading {self.path.name}", total=len(found)):
            yield found[start : start + step]


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """The arrays of a .npz or .h5 file.

    Raises:
        InputError: It is damaged, something else, or .h5 and there is no h5py.
    """
    if path.suffix == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                yield NpzFile(path, archive)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InputError(f"{path} is damaged, or no .npz file ({error}).") from None
        return
    try:
        import h5py  # type: ignore[import-untyped]  # an extra: nothing else needs it
    except ModuleNotFoundError:
        raise InputError(f"Reading {path} needs the package h5py: pip install h5py.") from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is damaged, or no .h5 file ({error}).") from None
    with file:
        yield H5File(path, file)
