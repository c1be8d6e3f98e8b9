"""One part of a table of instances as arrays: `Columns`, `Part`, `part_of`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # comes with `datasets`
import pyarrow.compute as pc  # type: ignore[import-untyped]

from lightning_attn.data.bags.store import first_bad
from lightning_attn.data.encoded import Array
from lightning_attn.data.labels import Label
from lightning_attn.errors import InputError


@dataclass
class Columns:
    """The columns of a table of instances, one row an instance.

    Attributes:
        bag: Bag id.
        features: Names of the columns of features; or a string that they begin with.
        label: Label of the bag; or one column of 0 and 1 a class.
        instance: Instance id.
        key: One number in [0, 1] an instance.
        keys: Instance ids of the bag's key instances.
        split: Split of the bag.
    """

    bag: str
    features: str | list[str]
    label: str | list[str]
    instance: str | None = None
    key: str | None = None
    keys: str | None = None
    split: str | None = None

    @property
    def texts(self) -> list[str]:
        """The columns that are read as strings, whatever they look like."""
        single = [self.label] if isinstance(self.label, str) else []
        return [name for name in (self.bag, *single, self.instance, self.keys, self.split) if name is not None]

    @property
    def numbers(self) -> list[str]:
        """The columns of numbers, other than features."""
        several = [] if isinstance(self.label, str) else self.label
        return [name for name in (*several, self.key) if name is not None]

    def feature_names(self, present: Sequence[str], source: str) -> list[str]:
        """The columns of features among those of a file.

        Raises:
            InputError: A column is missing or there twice.
        """
        for name in (*self.texts, *self.numbers, *([] if isinstance(self.features, str) else self.features)):
            if name not in present:
                raise InputError(f"{source} has no column {name!r}; it has {', '.join(present)}.")
        if doubled := {name for name in present if present.count(name) > 1}:
            raise InputError(f"{source} has the column {min(doubled)!r} twice; rename one.")
        names = list(self.features)
        if isinstance(self.features, str):
            others = {*self.texts, *self.numbers}
            names = [name for name in present if name.startswith(self.features) and name not in others]
            if not names:
                raise InputError(
                    f"{source} has no column that begins with {self.features!r}, as features should; it has "
                    f"{', '.join(present)}."
                )
        return names


@dataclass
class Part:
    """Some rows of a table. n rows; a code is a position in a list of values.

    Attributes:
        features: Shape ``(n, D)``, float32; NaN where nothing stands.
        bag: Codes of the bag ids, shape ``(n,)``, and the ids.
        label: Codes of the labels and the labels; None where there is none.
        split: Codes and names of splits; None if there is no such column.
        instance: Instance ids; None if there is no such column.
        key: Shape ``(n,)``, float32; NaN where nothing stands; None if there is no such column.
        keys: Codes, and the ids of key instances; None if there is no such column.
    """

    features: Array
    bag: tuple[Array, list[str]]
    label: tuple[Array, list[Label | None]]
    split: tuple[Array, list[str]] | None
    instance: list[str] | None
    key: Array | None
    keys: tuple[Array, list[list[str]]] | None


def part_of(
    batch: Any, columns: Columns, features: Sequence[str], width: int | None, source: str, place: Callable[[int], str]
) -> Part:
    """What some rows hold.

    Args:
        batch: A ``pyarrow.RecordBatch``.
        columns: What is asked for.
        features: The columns of features; or one whose values are lists.
        width: How many features an instance has; None if these are the first rows.
        source: The file, for messages.
        place: Where a row of these stands, for messages.

    Raises:
        InputError: A column holds something else than it should; or an instance has no bag, a feature that is no
            number, or another number of features than those before it.
    """
    codes, names = bag = _coded(batch.column(columns.bag))
    if len(nameless := np.flatnonzero(np.array([name == "" for name in names])[codes])):
        raise InputError(f"{place(int(nameless[0]))}: the column {columns.bag!r} is empty; it should hold a bag id.")

    def of_bag(row: int) -> str:
        return f"{place(row)}: an instance of the bag {names[codes[row]]!r}"

    return Part(
        features=_matrix(batch, features, width, source, of_bag),
        bag=bag,
        label=_labels(batch, columns, source),
        split=None if columns.split is None else _coded(batch.column(columns.split)),
        instance=None if columns.instance is None else _strings(batch.column(columns.instance)).to_pylist(),
        key=None if columns.key is None else _numbers(batch, columns.key, source),
        keys=None if columns.keys is None else _key_lists(batch.column(columns.keys)),
    )


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _matrix(batch: Any, names: Sequence[str], width: int | None, source: str, of_bag: Callable[[int], str]) -> Array:
    first = batch.column(names[0])
    if len(names) > 1 or not _is_list(first.type):
        matrix = np.empty((len(batch), len(names)), dtype=np.float32)
        for column, name in enumerate(names):
            matrix[:, column] = _numbers(batch, name, source)
    else:
        lengths = pc.fill_null(pc.list_value_length(first), 0).to_numpy(zero_copy_only=False)
        expected = int(lengths[0]) if width is None else width
        if len(wrong := np.flatnonzero(lengths != expected)):
            found = int(lengths[wrong[0]])
            raise InputError(f"{of_bag(int(wrong[0]))} has {found} features, but those before it have {expected}.")
        matrix = _floats(pc.list_flatten(first), names[0], source).reshape(len(batch), expected)
    if (bad := first_bad(matrix)) is not None:
        row, column = bad
        if np.isnan(matrix[row]).all():
            raise InputError(f"{of_bag(row)} has no features; fill them in, or remove the row.")
        where = f"in the column {names[column]!r}" if len(names) > 1 else f"as feature {column + 1}"
        value = "no number" if np.isnan(matrix[row, column]) else "an infinite number"
        raise InputError(f"{of_bag(row)} has {value} {where}.")
    return matrix


def _numbers(batch: Any, name: str, source: str) -> Array:
    return _floats(batch.column(name), name, source)


def _floats(column: Any, name: str, source: str) -> Array:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise InputError(f"{source}: the column {name!r} holds {column.type}; it should hold numbers.")
    return np.asarray(pc.cast(column, pa.float32(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float32)


def _strings(column: Any) -> Any:
    """As strings; whole numbers that were read as floats lose their point, and nothing becomes ""."""
    if pa.types.is_floating(column.type) and pc.all(pc.equal(column, pc.round(column))).as_py() is not False:
        column = pc.cast(column, pa.int64())
    return pc.fill_null(pc.cast(column, pa.string()), "")


def _coded(column: Any) -> tuple[Array, list[str]]:
    encoded = _strings(column).dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _labels(batch: Any, columns: Columns, source: str) -> tuple[Array, list[Label | None]]:
    if not isinstance(columns.label, str):
        return _label_columns(batch, columns.label, source)
    column = batch.column(columns.label)
    if not _is_list(column.type):
        codes, values = _coded(column)
        return codes, [value or None for value in values]
    codes, texts = _coded(pa.array([None if row is None else json.dumps(row) for row in column.to_pylist()]))
    return codes, [sorted(str(name) for name in json.loads(text)) if text else None for text in texts]


def _label_columns(batch: Any, names: list[str], source: str) -> tuple[Array, list[Label | None]]:
    """Of each row the names of the columns that hold 1; none of it counts if one column holds nothing."""
    matrix = np.stack([_numbers(batch, name, source) for name in names], axis=1)
    if len(wrong := np.argwhere(~np.isnan(matrix) & (matrix != 0) & (matrix != 1))):
        row, place = wrong[0]
        raise InputError(
            f"{source}: the column {names[place]!r} holds {matrix[row, place]:g}; a column of labels holds 0 or 1."
        )
    rows, codes = np.unique(np.nan_to_num(matrix, nan=-1), axis=0, return_inverse=True)
    values: list[Label | None] = [
        None if (row < 0).any() else [name for name, value in zip(names, row, strict=True) if value] for row in rows
    ]
    return codes.reshape(-1), values


def _key_lists(column: Any) -> tuple[Array, list[list[str]]]:
    if _is_list(column.type):
        codes, texts = _coded(pa.array([None if row is None else json.dumps(row) for row in column.to_pylist()]))
        return codes, [[str(name) for name in json.loads(text)] if text else [] for text in texts]
    codes, texts = _coded(column)
    return codes, [text.split() for text in texts]
