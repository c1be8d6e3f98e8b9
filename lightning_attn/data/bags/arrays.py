"""Bags of one's own from arrays in a .npz or .h5 file: `BagArrayDataModule`."""

from __future__ import annotations

import errno
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from typing_extensions import override

from lightning_attn.data.bags.h5_watch import watch_h5
from lightning_attn.data.bags.stored import (
    InstanceFile,
    RawBags,
    StoredBagDataModule,
    find_bag_files,
    first_bad,
    listed,
    rows_per_chunk,
)
from lightning_attn.data.encoded import Array, offsets_of
from lightning_attn.data.labels import Label
from lightning_attn.data.progress import track
from lightning_attn.data.tables import split_of
from lightning_attn.errors import InputError

REQUIRED = ("features", "sizes", "label")
OPTIONAL = ("id", "key", "keys", "split", "class_names")
INFLATION = 10_000  # bytes that a byte of a file may stand for; deflate reaches 1,032


class BagArrayDataModule(StoredBagDataModule):
    """Bags from a .npz or .h5 file of named arrays (.h5 needs the package h5py), copied a part at a time into a cache.

    | array | shape | holds |
    |---|---|---|
    | ``features`` | ``(N, ...)`` | the instances, bag after bag; numbers |
    | ``sizes`` | ``(B,)`` | instances of each bag, at least 1 |
    | ``label`` | ``(B,)`` | class of each bag, a string or a whole number |
    | | ``(B, C)`` | or 0 and 1, one column per class, where a bag may belong to several |
    | ``id`` | ``(B,)`` | what bags are called; without it, their numbers from 0 |
    | ``key`` | ``(N,)`` | how important an instance is, in [0, 1], NaN where unknown |
    | ``keys`` | ``(K, 2)`` | or the key instances: number of the bag and of the instance in it, from 0 |
    | ``split`` | ``(B,)`` | train, val or test; without it, files say |
    | ``class_names`` | ``(C,)`` | names of classes that are numbers or columns |

    All from ``id`` on may be missing. Splits are found by file name (train; val, valid, validation or dev; test) or in
    ``split``; what is missing is carved from train by bags, by ``seed`` alone. Nothing is unpickled, and a .h5 file
    that refers to other files is refused.

    Args:
        path: A file, or a folder with one or more files of each split.
        **kwargs: See `StoredBagDataModule`.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(self, path: str | Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    @override
    def files(self) -> dict[str, list[Path]]:
        return find_bag_files(self.path, [".npz", ".h5"])

    @override
    def settings(self) -> dict[str, Any]:
        return {}  # the arrays have fixed names

    @override
    def read(self, instances: InstanceFile) -> RawBags:
        parts = []
        for split, paths in self.files().items():
            for path in paths:
                with open_arrays(path, instances.folder) as arrays:
                    parts.append(_read_bags(arrays, split, instances))
        if len({part.evidence is None for part in parts}) > 1 or len({str(part.classes) for part in parts}) > 1:
            raise InputError(
                f"The files in {self.path} differ in having key, keys or class_names; give them to all or none."
            )
        evidence = [part.evidence for part in parts if part.evidence is not None]
        return RawBags(
            names=[name for part in parts for name in part.names],
            labels=[label for part in parts for label in part.labels],
            sizes=np.concatenate([part.sizes for part in parts]),
            splits=[split for part in parts for split in part.splits],
            evidence=np.concatenate(evidence) if evidence else None,
            classes=parts[0].classes,
            ignored=parts[0].ignored,
        )


class ArrayFile:
    """Named arrays of a file, which are read as they are sliced.

    Args:
        path: Where they are, for messages.
        openers: What gives each of them; called again for each part, so that what was read of a memory map does not
            count as our memory any more.
    """

    def __init__(self, path: Path, openers: Mapping[str, Callable[[], Any]]) -> None:
        self.path = path
        self._openers = openers

    @property
    def names(self) -> list[str]:
        """The names of the arrays."""
        return list(self._openers)

    def open(self, name: str) -> Any:
        """An array that has ``shape`` and ``dtype`` and can be sliced.

        Raises:
            InputError: It is damaged, holds Python objects, or is larger than the file can hold.
        """
        with _explained(self.path, name):
            return self._openers[name]()

    def read(self, name: str) -> Array:
        """An array, whole; strings are decoded.

        Raises:
            InputError: As for :meth:`open`.
        """
        array = self.open(name)
        with _explained(self.path, name):
            if array.dtype.kind in "OS":
                return np.asarray((array.asstr()[...] if hasattr(array, "asstr") else array).astype(str))
            return np.array(array[...])

    def parts(self, name: str) -> Iterator[Array]:
        """An array of numbers, some rows at a time.

        Raises:
            InputError: It holds something else than numbers, or has no rows, or as for :meth:`open`.
        """
        array = self.open(name)
        shape, kind = array.shape, array.dtype
        if kind.kind not in "fiub":
            raise InputError(f"{self.path}: {name} holds {kind}; it should hold numbers, all instances of equal width.")
        if len(shape) < 2:
            raise InputError(f"{self.path}: {name} has the shape {shape}; it should be one row per instance.")
        step = rows_per_chunk(shape[1:])
        for start in track(range(0, shape[0], step), f"Reading {self.path.name}", total=shape[0]):
            with _explained(self.path, name):
                part = np.array(self.open(name)[start : start + step])
            yield part


@contextmanager
def _explained(path: Path, name: str = "") -> Iterator[None]:
    """Whatever the libraries raise on a damaged file, or array of it, becomes one sentence; but not a full disk."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        what = f": {name} cannot be read" if name else f", or no {path.suffix} file"
        raise InputError(f"{path} is damaged{what} ({text}).") from None


@contextmanager
def open_arrays(path: Path, scratch: Path) -> Iterator[ArrayFile]:
    """The arrays of a .npz or .h5 file.

    Args:
        path: Where it is.
        scratch: Folder into which a .npz file is unpacked, array by array.

    Raises:
        InputError: It is damaged, something else, or .h5 and there is no h5py.
    """
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    openers = _npz_openers if path.suffix == ".npz" else _h5_openers
    try:
        with ExitStack() as stack:
            yield ArrayFile(path, openers(path, unpacked, stack))
    finally:
        shutil.rmtree(unpacked)


def _npz_openers(path: Path, unpacked: Path, stack: ExitStack) -> dict[str, Callable[[], Any]]:
    """For each member what gives it as a memory map; it is unpacked when it is asked for first."""
    with _explained(path):
        archive = stack.enter_context(zipfile.ZipFile(path))
        names = [name.removesuffix(".npy") for name in archive.namelist()]

    def member(name: str) -> Any:
        place = unpacked / name
        if not place.exists():
            with archive.open(f"{name}.npy") as packed, place.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        with place.open("rb") as file:
            header = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
            shape, fortran, kind = header(file)
            if kind.hasobject:
                raise InputError(
                    f"{path}: {name} cannot be read (Object arrays cannot be loaded, nothing is unpickled): it holds "
                    f"{kind}; it should hold numbers, all instances of equal width, or strings."
                )
            return np.memmap(place, kind, "r", file.tell(), shape, "F" if fortran else "C")

    return {name: partial(member, name) for name in names}


def _h5_openers(path: Path, unpacked: Path, stack: ExitStack) -> dict[str, Callable[[], Any]]:
    """For each data set at the top what gives it; data sets whose values stand in other files are refused."""
    try:
        import h5py  # type: ignore[import-untyped]  # an extra: nothing else needs it
    except ModuleNotFoundError:
        raise InputError(f"Reading {path} needs the package h5py: pip install h5py.") from None
    with _explained(path):
        file = stack.enter_context(h5py.File(path, "r"))
        links = {name: file.get(name, getlink=True) for name in file}
        names = [
            name
            for name, link in links.items()
            if isinstance(link, h5py.ExternalLink) or file.get(name, getclass=True) is h5py.Dataset
        ]

    watched: list[Path] = []

    def data_set(name: str) -> Any:
        if isinstance(links[name], h5py.ExternalLink):
            raise InputError(f"{path}: {name} stands in another file; store its values in this one.")
        array = file[name]
        if array.file.filename != file.filename or array.external or array.is_virtual:
            raise InputError(f"{path}: {name} stands in another file; store its values in this one.")
        if int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize > INFLATION * path.stat().st_size:
            raise InputError(f"{path} is damaged: {name} has the shape {array.shape}, more than the file can hold.")
        if array.dtype.hasobject and not watched:
            watch_h5(path)
            watched.append(path)
        return array

    return {name: partial(data_set, name) for name in names}


def _read_bags(arrays: ArrayFile, split: str, instances: InstanceFile) -> RawBags:
    path = arrays.path
    if missing := [name for name in REQUIRED if name not in arrays.names]:
        raise InputError(f"{path} has no array {missing[0]!r}; it has {listed(arrays.names)}.")
    sizes = _whole(arrays, "sizes")
    names = _strings(arrays, "id", len(sizes)) or [str(number) for number in range(len(sizes))]
    if len(again := np.flatnonzero(np.unique(names, return_counts=True)[1] > 1)):
        raise InputError(f"{path} has two bags of the id {str(np.unique(names)[again[0]])!r}.")
    if len(wrong := np.flatnonzero(sizes < 1)):
        raise InputError(f"{path}: the bag {names[wrong[0]]!r} is empty (size {sizes[wrong[0]]}); remove it.")
    offsets = offsets_of(sizes)
    _copy(arrays, offsets, names, instances)
    classes = _strings(arrays, "class_names", None)
    return RawBags(
        names=names,
        labels=_labels(arrays, names, classes),
        sizes=sizes,
        splits=_splits(arrays, names, split),
        evidence=_evidence(arrays, offsets, names),
        classes=classes,
        ignored=[name for name in arrays.names if name not in (*REQUIRED, *OPTIONAL)],
    )


def _copy(arrays: ArrayFile, offsets: Array, names: list[str], instances: InstanceFile) -> None:
    """Bring the instances over, and see that they are numbers, and as many as the bags say."""
    begin = instances.count
    for part in arrays.parts("features"):
        if instances.shape is not None and part.shape[1:] != instances.shape:
            raise InputError(
                f"{arrays.path} has instances of shape {part.shape[1:]}, but the files before it of {instances.shape}."
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            rows = part.astype(np.float32, copy=False)
        if (bad := first_bad(rows)) is not None:
            number = instances.count - begin + bad[0]
            bag = min(int(np.searchsorted(offsets, number, side="right")) - 1, len(names) - 1)
            value = "no number" if np.isnan(rows.reshape(len(rows), -1)[bad]) else "an infinite number"
            raise InputError(
                f"{arrays.path}: instance {number - offsets[bag]} of the bag {names[bag]!r} has {value} as feature "
                f"{bad[1] + 1}."
            )
        instances.append(rows)
    if instances.count - begin != offsets[-1]:
        raise InputError(
            f"{arrays.path} has {instances.count - begin:,} instances, but the sizes of its bags add up to "
            f"{offsets[-1]:,}."
        )


def _labels(arrays: ArrayFile, names: list[str], classes: list[str] | None) -> list[Label]:
    path = arrays.path
    label = arrays.read("label")
    if label.shape[:1] != (len(names),) or label.ndim > 2:
        raise InputError(f"{path}: label has the shape {label.shape}, but there are {len(names):,} bags.")
    if label.ndim == 2:
        if len(neither := np.argwhere((label != 0) & (label != 1))):
            bag, column = neither[0]
            raise InputError(
                f"{path}: the bag {names[bag]!r} has {label[bag, column]} in column {column + 1} of label; it should "
                "be 0 or 1."
            )
        columns = classes or [str(column) for column in range(label.shape[1])]
        if len(columns) != label.shape[1]:
            raise InputError(f"{path}: label has {label.shape[1]} columns, but there are {len(columns)} class_names.")
        return [[columns[column] for column in np.flatnonzero(row)] for row in label]
    if label.dtype.kind == "U":
        return [str(name) for name in label]
    if label.dtype.kind not in "fiub":
        raise InputError(f"{path}: label holds {label.dtype}; it should hold strings or whole numbers.")
    if len(broken := np.flatnonzero((label != np.rint(label)) | ~np.isfinite(label))):
        raise InputError(
            f"{path}: the bag {names[broken[0]]!r} has the label {label[broken[0]]}; it should be a string or a whole "
            "number."
        )
    numbers = label.astype(np.int64)
    if classes is None:
        return [str(number) for number in numbers]
    if len(wrong := np.flatnonzero((numbers < 0) | (numbers >= len(classes)))):
        raise InputError(
            f"{path}: the bag {names[wrong[0]]!r} has the label {numbers[wrong[0]]}, but there are {len(classes)} "
            "class_names."
        )
    return [classes[number] for number in numbers]


def _evidence(arrays: ArrayFile, offsets: Array, names: list[str]) -> Array | None:
    path = arrays.path
    if "key" in arrays.names and "keys" in arrays.names:
        raise InputError(f"{path} has key (a number per instance) and keys (pairs of bag and instance); leave one out.")
    if "key" in arrays.names:
        evidence = arrays.read("key")
        if evidence.dtype.kind not in "fiub":
            raise InputError(f"{path}: key holds {evidence.dtype}; it should hold numbers from 0 to 1.")
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as above 1
            evidence = evidence.astype(np.float32)
        if evidence.shape != (offsets[-1],):
            raise InputError(f"{path}: key has the shape {evidence.shape}, but there are {offsets[-1]:,} instances.")
        if len(wrong := np.flatnonzero((evidence < 0) | (evidence > 1))):
            bag = int(np.searchsorted(offsets, wrong[0], side="right")) - 1
            raise InputError(
                f"{path}: instance {wrong[0] - offsets[bag]} of the bag {names[bag]!r} has the key "
                f"{evidence[wrong[0]]:g}; it should be from 0 to 1."
            )
        return evidence
    if "keys" not in arrays.names:
        return None
    keys = _whole(arrays, "keys", columns=2)
    if len(strange := np.flatnonzero((keys[:, 0] < 0) | (keys[:, 0] >= len(names)))):
        raise InputError(f"{path}: keys name the bag number {keys[strange[0], 0]}, but there are {len(names):,} bags.")
    sizes = np.diff(offsets)
    if len(outside := np.flatnonzero((keys[:, 1] < 0) | (keys[:, 1] >= sizes[keys[:, 0]]))):
        bag, instance = keys[outside[0]]
        raise InputError(
            f"{path}: the bag {names[bag]!r} has the key {instance}, but its instances are numbered from 0 to "
            f"{sizes[bag] - 1}."
        )
    evidence = np.zeros(offsets[-1], dtype=np.float32)
    evidence[offsets[keys[:, 0]] + keys[:, 1]] = 1
    return evidence


def _splits(arrays: ArrayFile, names: list[str], split: str) -> list[str]:
    values = _strings(arrays, "split", len(names))
    if values is None:
        return [split] * len(names)
    splits = [split_of(value) for value in values]
    if None in splits:
        bag = splits.index(None)
        raise InputError(
            f"{arrays.path}: the bag {names[bag]!r} is of the split {values[bag]!r}; it should be train, val or test."
        )
    return [value for value in splits if value is not None]


def _strings(arrays: ArrayFile, name: str, count: int | None) -> list[str] | None:
    """An array as strings; None if there is none."""
    if name not in arrays.names:
        return None
    array = arrays.read(name)
    if array.ndim != 1 or (count is not None and len(array) != count):
        raise InputError(f"{arrays.path}: {name} has the shape {array.shape}; it should be one value per bag.")
    if array.dtype.kind not in "Ufiub":
        raise InputError(f"{arrays.path}: {name} holds {array.dtype}; it should hold strings or numbers.")
    return [str(value) for value in array.astype(str)]


def _whole(arrays: ArrayFile, name: str, columns: int | None = None) -> Array:
    array = arrays.read(name)
    fits = array.ndim == 1 if columns is None else array.ndim == 2 and array.shape[1] == columns
    if not fits or array.dtype.kind not in "iu":
        shape = "(B,)" if columns is None else f"(K, {columns})"
        raise InputError(
            f"{arrays.path}: {name} should be whole numbers of shape {shape}, not {array.dtype} of shape {array.shape}."
        )
    return np.asarray(array, dtype=np.int64)
