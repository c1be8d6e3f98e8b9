"""Bags of one's own from tables with one row per instance: `BagTableDataModule`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc  # type: ignore[import-untyped]  # comes with `datasets`
from typing_extensions import override

from lightning_attn.data.bags.stored import (
    InstanceFile,
    RawBags,
    StoredBagDataModule,
    find_bag_files,
    first_bad,
    kind_of,
)
from lightning_attn.data.bags.table_files import (
    DAMAGED,
    Columns,
    Numbering,
    batches,
    coded,
    csv_rows,
    explain,
    floats,
    is_list,
    lists,
    strings,
)
from lightning_attn.data.encoded import Array
from lightning_attn.data.tables import SEPARATORS, split_of
from lightning_attn.errors import InputError


class BagTableDataModule(StoredBagDataModule):
    """Bags from csv, tsv (also .gz, .xz) or parquet files, one row per instance, read a part at a time into a cache.

    A million instances need no more memory than a few. Splits are found by file name (train; val, valid, validation or
    dev; test) or in the ``split`` column; what is missing is carved from train by bags, by ``seed`` alone.

    Args:
        path: A file, or a folder with one or more files of each split.
        bag: Column of the bag ids; the rows of a bag need not stand together.
        features: What the names of the columns of features begin with; or a list of these columns. In parquet it may be
            one column of lists.
        label: Column of the bag's label, the same in all its rows: strings or whole numbers; lists of them (parquet),
            in any order, where a bag may belong to several classes. Or a list of columns of 0 and 1, one per class,
            which does so too.
        instance: Column of instance ids, each once in a bag; None if there is none.
        key: Column with one number in [0, 1] per instance, how important it is; empty where unknown. None if there is
            none.
        keys: Column with the ids of the bag's key instances, a list or separated by spaces, in any of its rows; the
            other instances are not key. Needs ``instance``. None if there is none.
        split: Column that says which split the bag belongs to; None finds splits by the names of files.
        **kwargs: See `StoredBagDataModule`.

    Raises:
        InputError: A number is out of its range, or arguments contradict each other.
    """

    def __init__(
        self,
        path: str | Path,
        bag: str = "bag",
        features: str | list[str] = "feature",
        label: str | list[str] = "label",
        instance: str | None = None,
        key: str | None = None,
        keys: str | None = None,
        split: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if key is not None and keys is not None:
            raise InputError(
                f"Give key ({key!r}, a number per instance) or keys ({keys!r}, ids of instances), not both."
            )
        if keys is not None and instance is None:
            raise InputError(
                f"The keys in {keys!r} are ids of instances: say in which column those are, with instance."
            )
        self.path = path
        self.columns = Columns(bag, features, label, instance, key, keys, split)

    @override
    def files(self) -> dict[str, list[Path]]:
        return find_bag_files(self.path, [*SEPARATORS, ".parquet"])

    @override
    def settings(self) -> dict[str, Any]:
        return asdict(self.columns)

    @override
    def read(self, instances: InstanceFile) -> RawBags:
        return TableReader(self.columns, instances).read(self.files())


class TableReader:
    """Reads tables of instances, some rows at a time.

    The rows of a bag need not stand together. Bags are numbered as they first appear; equal ids in files of different
    splits are different bags.

    Args:
        columns: Where everything stands.
        instances: Where the features go, in the order of the files.
    """

    def __init__(self, columns: Columns, instances: InstanceFile) -> None:
        self.columns = columns
        self.instances = instances
        self._files: list[tuple[Path, int]] = []  # with the number of its first row
        self._feature_names: list[str] = []
        self._bags = Numbering()  # pairs of the file's split and the id
        self._labels = Numbering()  # names, or tuples of them; None where there is none
        self._splits = Numbering()
        self._keys: dict[int, dict[str, None]] = defaultdict(dict)  # ids of key instances, by bag
        # bag, label and split of each row as numbers, key, and hash of bag and instance id; in parts
        self._rows: dict[str, list[Array]] = defaultdict(list)

    def read(self, files: Mapping[str, Sequence[Path]]) -> RawBags:
        """Read the files of each split, or of "" if files do not say.

        Raises:
            InputError: The tables cannot be read, or contradict themselves.
        """
        for split, paths in files.items():
            for path in paths:
                if path.stat().st_size == 0:
                    raise InputError(f"{path} is empty: it should hold one instance per row.")
                self._files.append((path, self.instances.count))
                for features in self._parts(path, split):
                    self.instances.append(features)
                if self.instances.count == self._files[-1][1]:
                    below = "" if kind_of(path) == ".parquet" else " below its header"
                    raise InputError(f"{path} has no rows{below}.")
        bag = np.concatenate(self._rows["bag"])
        order = None if (np.diff(bag) >= 0).all() else np.argsort(bag, kind="stable")
        evidence = self._evidence(bag)
        labels = self._of_bags(bag, "label", self._labels.values)
        return RawBags(
            names=[name for _, name in self._bags.values],
            labels=[list(label) if isinstance(label, tuple) else label for label in labels],
            sizes=np.bincount(bag),
            splits=self._of_bags(bag, "split", self._splits.values),
            evidence=evidence if evidence is None or order is None else evidence[order],
            classes=None if isinstance(self.columns.label, str) else self.columns.label,
            order=order,
        )

    def _parts(self, path: Path, split: str) -> Iterator[Array]:
        """Features of some rows after others; what else the rows hold is kept."""
        try:
            for batch, names in batches(path, self.columns):
                yield self._part(path, split, batch, names)
        except DAMAGED as error:
            if kind_of(path) != ".parquet":
                explain(path, self.columns)
            text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(f"{path} cannot be read as {kind_of(path)} ({text}).") from error

    def _part(self, path: Path, split: str, batch: Any, names: list[str]) -> Array:
        columns, rows = self.columns, self._rows
        self._feature_names = self._feature_names or names
        if names != self._feature_names:
            first = self._feature_names
            raise InputError(
                f"{path} has {len(names)} columns of features, {names[0]} to {names[-1]}, but the files before it have "
                f"{len(first)}, {first[0]} to {first[-1]}."
            )
        codes, ids = coded(batch.column(columns.bag))
        if (row := _first(np.array([name == "" for name in ids])[codes])) is not None:
            raise InputError(f"{self._place(row)}: the column {columns.bag!r} is empty; it should hold a bag id.")
        bag = self._bags.numbers(codes, [(split, name) for name in ids])
        rows["bag"].append(bag)
        features = self._features(path, batch, names, [ids[code] for code in codes])
        rows["label"].append(self._labels.numbers(*_labels(path, batch, columns)))
        rows["split"].append(self._splits.numbers(*self._split(batch, split)))
        if columns.key is not None:
            rows["key"].append(key := floats(path, batch.column(columns.key), columns.key))
            if (row := _first((key < 0) | (key > 1))) is not None:
                raise InputError(
                    f"{self._place(row)}: an instance of the bag {self._name(bag[row])!r} has the key "
                    f"{key[row]:g}; it should be from 0 to 1."
                )
        if columns.instance is not None:
            rows["instance"].append(_hashes(bag, strings(batch.column(columns.instance)).to_pylist()))
        if columns.keys is not None:
            codes, sets = lists(batch.column(columns.keys))
            for number, code in np.unique(np.stack([bag, codes], axis=1), axis=0).tolist():
                self._keys[number].update(dict.fromkeys(sets[code] or ()))
        return features

    def _features(self, path: Path, batch: Any, names: Sequence[str], bag: list[str]) -> Array:
        """The features of each row, shape ``(n, D)``, float32."""

        def instance(row: int) -> str:
            return f"{self._place(row)}: an instance of the bag {bag[row]!r}"

        first = batch.column(names[0])
        if len(names) > 1 or not is_list(first.type):
            matrix = np.empty((len(batch), len(names)), dtype=np.float32)
            for column, name in enumerate(names):
                matrix[:, column] = floats(path, batch.column(name), name)
        else:
            widths = pc.fill_null(pc.list_value_length(first), 0).to_numpy(zero_copy_only=False)
            width = int(widths[0]) if self.instances.shape is None else self.instances.shape[0]
            if (row := _first(widths != width)) is not None:
                raise InputError(f"{instance(row)} has {widths[row]} features, but those before it have {width}.")
            matrix = floats(path, pc.list_flatten(first), names[0]).reshape(len(batch), width)
        if (bad := first_bad(matrix)) is not None:
            row, column = bad
            if np.isnan(matrix[row]).all():
                raise InputError(f"{instance(row)} has no features; fill them in, or remove the row.")
            where = f"in the column {names[column]!r}" if len(names) > 1 else f"as feature {column + 1}"
            value = "no number" if np.isnan(matrix[row, column]) else "an infinite number"
            raise InputError(f"{instance(row)} has {value} {where}.")
        return matrix

    def _split(self, batch: Any, split: str) -> tuple[Array, list[str | None]]:
        """Of each row the code of a split, and the splits: those of the column, or that of the file."""
        if self.columns.split is None:
            return np.zeros(len(batch), dtype=np.int64), [split]
        codes, values = coded(batch.column(self.columns.split))
        splits = [split_of(value) for value in values]
        if None in splits:
            row = int(np.argmax(codes == splits.index(None)))
            raise InputError(
                f"{self._place(row)}: the column {self.columns.split!r} holds {values[codes[row]]!r}, which names no "
                "split; it should be train, val or test."
            )
        return codes, splits

    def _of_bags(self, bag: Array, what: str, values: list[Any]) -> list[Any]:
        """What the first row of each bag says, and see that all its rows say the same.

        Raises:
            InputError: They do not, or say nothing.
        """
        numbers = np.concatenate(self._rows[what])
        if (row := _first(np.array([value is None for value in values])[numbers])) is not None:
            raise InputError(f"{self._place(row, 0)}: the bag {self._name(bag[row])!r} has no {what}.")
        of_bags = numbers[np.unique(bag, return_index=True)[1]]
        if (row := _first(numbers != of_bags[bag])) is not None:
            own, first = (
                list(value) if isinstance(value, tuple) else value
                for value in (values[numbers[row]], values[of_bags[bag[row]]])
            )
            raise InputError(
                f"{self._place(row, 0)}: the bag {self._name(bag[row])!r} has the {what} {own!r}, but {first!r} in a "
                f"row before; a bag has one {what}."
            )
        return [values[number] for number in of_bags]

    def _evidence(self, bag: Array) -> Array | None:
        """One number per instance, in the order of the rows."""
        key = np.concatenate(self._rows["key"]) if self.columns.key is not None else None
        if self.columns.instance is None:
            return key
        instance = np.concatenate(self._rows["instance"])
        order = np.argsort(instance, kind="stable")
        if len(again := np.flatnonzero(np.diff(instance[order]) == 0)):
            row = int(order[again + 1].min())
            raise InputError(
                f"{self._place(row, 0)}: the bag {self._name(bag[row])!r} has an instance of this id already."
            )
        if self.columns.keys is None:
            return key
        evidence = np.zeros(len(bag), dtype=np.float32)
        for number, ids in self._keys.items():
            wanted = _hashes(np.full(len(ids), number), list(ids))
            where = order[np.minimum(np.searchsorted(instance, wanted, sorter=order), len(order) - 1)]
            if (missing := _first(instance[where] != wanted)) is not None:
                raise InputError(
                    f"{', '.join(str(path) for path, _ in self._files)}: the bag {self._name(number)!r} has the key "
                    f"{list(ids)[missing]!r}, which is none of its instances."
                )
            evidence[where] = 1
        return evidence

    def _name(self, bag: int) -> str:
        return str(self._bags.values[bag][1])

    def _place(self, row: int, begin: int | None = None) -> str:
        """Where a row stands, counted from the beginning of the part that is being read, or from ``begin``."""
        row += self.instances.count if begin is None else begin
        path, first = next(file for file in reversed(self._files) if file[1] <= row)
        if kind_of(path) == ".parquet":
            return f"{path}, row {row - first + 1}"
        return next(f"{path}, line {line}" for number, (line, _) in enumerate(csv_rows(path)) if number == row - first)


def _first(condition: Array) -> int | None:
    """The first row where a condition holds, shape ``(n,)``; None if there is none."""
    return int(np.argmax(condition)) if condition.any() else None


def _labels(path: Path, batch: Any, columns: Columns) -> tuple[Array, Sequence[Hashable]]:
    """Of each row the code of a label, and the labels: strings, sorted tuples of them, or None where there is none."""
    if isinstance(columns.label, str):
        column = batch.column(columns.label)
        if is_list(column.type):
            codes, sets = lists(column)
            return codes, [None if names is None or "" in names else names for names in sets]
        codes, texts = coded(column)
        return codes, [text or None for text in texts]
    matrix = np.stack([floats(path, batch.column(name), name) for name in columns.label], axis=1)
    if len(wrong := np.argwhere(~np.isnan(matrix) & (matrix != 0) & (matrix != 1))):
        row, place = wrong[0]
        raise InputError(
            f"{path}: the column {columns.label[place]!r} holds {matrix[row, place]:g}; a column of labels holds 0 or "
            "1."
        )
    rows, codes = np.unique(np.nan_to_num(matrix, nan=-1), axis=0, return_inverse=True)
    # one empty column, and nothing of the row counts
    return codes.reshape(-1), [
        None if (row < 0).any() else tuple(name for name, value in zip(columns.label, row, strict=True) if value)
        for row in rows
    ]


def _hashes(bag: Array, instances: list[str]) -> Array:
    """64 bits for each bag and instance id: two in a million instances are the same once in ten million tables."""
    from pandas.util import hash_array

    hashed = hash_array(np.array(instances, dtype=object), categorize=False)
    return np.asarray(hashed ^ (bag.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
