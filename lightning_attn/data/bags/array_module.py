"""Bags of one's own from arrays: `BagArrayDataModule`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data.bags.array_files import ArrayFile, open_arrays
from lightning_attn.data.bags.files import find_bag_files
from lightning_attn.data.bags.store import FeatureFile, RawBags, first_bad
from lightning_attn.data.bags.stored import StoredBagDataModule
from lightning_attn.data.encoded import Array, offsets_of
from lightning_attn.data.labels import Label
from lightning_attn.data.tables import split_of
from lightning_attn.errors import InputError

NEEDED = ("features", "sizes", "label")
KNOWN = (*NEEDED, "id", "key", "keys", "split", "class_names")


class BagArrayDataModule(StoredBagDataModule):
    """Bags from a .npz or .h5 file of named arrays (.h5 needs the package h5py), copied a part at a time into a cache.

    | array | shape | holds |
    |---|---|---|
    | ``features`` | ``(N, ...)`` | the instances, bag after bag; numbers |
    | ``sizes`` | ``(B,)`` | instances of each bag, at least 1 |
    | ``label`` | ``(B,)`` | class of each bag, a string or a whole number |
    | | ``(B, C)`` | or 0 and 1, a column a class, where a bag may belong to several |
    | ``id`` | ``(B,)`` | what bags are called; without it, their numbers from 0 |
    | ``key`` | ``(N,)`` | how important an instance is, in [0, 1], NaN where unknown |
    | ``keys`` | ``(K, 2)`` | or the key instances: number of the bag and of the instance in it, from 0 |
    | ``split`` | ``(B,)`` | train, val or test; without it, files say |
    | ``class_names`` | ``(C,)`` | names of classes that are numbers or columns |

    All from ``id`` on may be missing. Splits are found by file name (train; val, valid, validation or dev; test) or in
    ``split``; what is missing is carved from train by bags, by ``seed`` alone.

    Args:
        path: A file, or a folder with one or more files of each split.
        val_share: Part of train that becomes ``val`` if there is none, in [0, 1); 0 goes without.
        test_share: Part of train that becomes ``test`` if there is none, in [0, 1); 0 goes without.
        cache_dir: Where prepared data are kept; None means LIGHTNING_ATTN_CACHE or ``~/.cache/lightning_attn``.
        batch_size: Bags of a training batch at most, on each process.
        seed: Decides what is carved, and the order of training bags.
        num_workers: Processes that make batches beside the main one.
        evaluation_batch_size: Bags of a batch in validation, test and prediction; None means ``batch_size``.
        max_instances: Instances of a batch at most; None for no limit.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        path: str | Path,
        val_share: float = 0.1,
        test_share: float = 0.1,
        cache_dir: str | Path | None = None,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int | None = None,
        max_instances: int | None = None,
    ) -> None:
        super().__init__(
            val_share, test_share, cache_dir, batch_size, seed, num_workers, evaluation_batch_size, max_instances
        )
        self.path = path

    def files(self) -> dict[str, list[Path]]:
        """The files of each split."""
        return find_bag_files(self.path, [".npz", ".h5"])

    def settings(self) -> dict[str, Any]:
        """None: the arrays have fixed names."""
        return {}

    def read(self, features: FeatureFile) -> RawBags:
        """The files one after another."""
        parts = []
        for split, paths in self.files().items():
            for path in paths:
                with open_arrays(path) as arrays:
                    parts.append(_read(arrays, split, features))
        if len({part.evidence is None for part in parts}) > 1 or len({str(part.classes) for part in parts}) > 1:
            raise InputError(
                f"The files in {self.path} differ in having key, keys or class_names; give them to all or none."
            )
        known = [part.evidence for part in parts if part.evidence is not None]
        return RawBags(
            names=[name for part in parts for name in part.names],
            labels=[label for part in parts for label in part.labels],
            sizes=np.concatenate([part.sizes for part in parts]),
            splits=[split for part in parts for split in part.splits],
            evidence=np.concatenate(known) if known else None,
            classes=parts[0].classes,
            ignored=parts[0].ignored,
        )


def _read(arrays: ArrayFile, split: str, features: FeatureFile) -> RawBags:
    path = arrays.path
    if missing := [name for name in NEEDED if name not in arrays.names]:
        raise InputError(f"{path} has no array {missing[0]!r}; it has {', '.join(arrays.names) or 'none'}.")
    sizes = _whole(arrays, "sizes")
    names = _strings(arrays, "id", len(sizes)) or [str(number) for number in range(len(sizes))]
    if len(again := np.flatnonzero(np.unique(names, return_counts=True)[1] > 1)):
        raise InputError(f"{path} has two bags of the id {str(np.unique(names)[again[0]])!r}.")
    if len(wrong := np.flatnonzero(sizes < 1)):
        raise InputError(f"{path}: the bag {names[wrong[0]]!r} is empty (size {sizes[wrong[0]]}); remove it.")
    offsets = offsets_of(sizes)
    _copy(arrays, offsets, names, features)
    classes = _strings(arrays, "class_names", None)
    return RawBags(
        names=names,
        labels=_labels(arrays, names, classes),
        sizes=sizes,
        splits=_splits(arrays, names, split),
        evidence=_evidence(arrays, offsets, names),
        classes=classes,
        ignored=[name for name in arrays.names if name not in KNOWN],
    )


def _copy(arrays: ArrayFile, offsets: Array, names: list[str], features: FeatureFile) -> None:
    """Bring the instances over, and see that they are numbers, and as many as the bags say."""
    begin = features.count
    for part in arrays.parts("features"):
        if features.shape is not None and part.shape[1:] != features.shape:
            raise InputError(
                f"{arrays.path} has instances of shape {part.shape[1:]}, but the files before it of {features.shape}."
            )
        rows = part.astype(np.float32, copy=False)
        if (bad := first_bad(rows)) is not None:
            number = features.count - begin + bad[0]
            bag = min(int(np.searchsorted(offsets, number, side="right")) - 1, len(names) - 1)
            value = "no number" if np.isnan(rows.reshape(len(rows), -1)[bad]) else "an infinite number"
            raise InputError(
                f"{arrays.path}: instance {number - offsets[bag]} of the bag {names[bag]!r} has {value} as feature "
                f"{bad[1] + 1}."
            )
        features.append(rows)
    if features.count - begin != offsets[-1]:
        raise InputError(
            f"{arrays.path} has {features.count - begin:,} instances, but the sizes of its bags add up to "
            f"{offsets[-1]:,}."
        )


def _labels(arrays: ArrayFile, names: list[str], classes: list[str] | None) -> list[Label]:
    path = arrays.path
    found = arrays.read("label")
    if found.shape[:1] != (len(names),) or found.ndim > 2:
        raise InputError(f"{path}: label has the shape {found.shape}, but there are {len(names):,} bags.")
    if found.ndim == 2:
        if len(neither := np.argwhere((found != 0) & (found != 1))):
            bag, column = neither[0]
            raise InputError(
                f"{path}: the bag {names[bag]!r} has {found[bag, column]} in column {column + 1} of label; it should "
                "be 0 or 1."
            )
        columns = classes or [str(column) for column in range(found.shape[1])]
        if len(columns) != found.shape[1]:
            raise InputError(f"{path}: label has {found.shape[1]} columns, but there are {len(columns)} class_names.")
        return [[columns[column] for column in np.flatnonzero(row)] for row in found]
    if found.dtype.kind in "US":
        return [str(label) for label in found.astype(str)]
    if found.dtype.kind not in "fiub":
        raise InputError(f"{path}: label holds {found.dtype}; it should hold strings or whole numbers.")
    if len(broken := np.flatnonzero(found != np.rint(found))):
        raise InputError(
            f"{path}: the bag {names[broken[0]]!r} has the label {found[broken[0]]}; it should be a string or a whole "
            "number."
        )
    numbers = found.astype(np.int64)
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
        raise InputError(f"{path} has key (a number an instance) and keys (pairs of bag and instance); leave one out.")
    if "key" in arrays.names:
        evidence = arrays.read("key").astype(np.float32)
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
    said = _strings(arrays, "split", len(names))
    if said is None:
        return [split] * len(names)
    found = [split_of(value) for value in said]
    if None in found:
        bag = found.index(None)
        raise InputError(
            f"{arrays.path}: the bag {names[bag]!r} is of the split {said[bag]!r}; it should be train, val or test."
        )
    return [value for value in found if value is not None]


def _strings(arrays: ArrayFile, name: str, count: int | None) -> list[str] | None:
    """An array as strings; None if there is none."""
    if name not in arrays.names:
        return None
    found = arrays.read(name)
    if found.ndim != 1 or (count is not None and len(found) != count):
        raise InputError(f"{arrays.path}: {name} has the shape {found.shape}; it should be one value a bag.")
    return [str(value) for value in found.astype(str)]


def _whole(arrays: ArrayFile, name: str, columns: int | None = None) -> Array:
    found = arrays.read(name)
    wanted = found.ndim == 1 if columns is None else found.ndim == 2 and found.shape[1] == columns
    if not wanted or found.dtype.kind not in "iu":
        shape = "(B,)" if columns is None else f"(K, {columns})"
        raise InputError(
            f"{arrays.path}: {name} should be whole numbers of shape {shape}, not {found.dtype} of shape {found.shape}."
        )
    return np.asarray(found, dtype=np.int64)
