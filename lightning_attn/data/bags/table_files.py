"""Tables of instances, some rows at a time, and their columns as arrays: `batches`, `floats`, `coded`, `lists`."""

from __future__ import annotations

import csv
import gzip
import lzma
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # comes with `datasets`
import pyarrow.compute as pc  # type: ignore[import-untyped]
from pyarrow import csv as arrow_csv
from pyarrow import parquet as arrow_parquet
from rich.console import Console
from rich.progress import open as open_with_bar

from lightning_attn.data.bags import stored
from lightning_attn.data.bags.stored import kind_of, listed
from lightning_attn.data.encoded import Array
from lightning_attn.data.files import read_lines
from lightning_attn.data.progress import track
from lightning_attn.data.tables import SEPARATORS
from lightning_attn.errors import InputError

LONG = 50_000_000  # bytes; less is read before a bar could be
DAMAGED = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)


@dataclass
class Columns:
    """The columns of a table of instances; see `BagTableDataModule`."""

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
                raise InputError(f"{source} has no column {name!r}; it has {listed(present)}.")
        if doubled := {name for name in present if present.count(name) > 1}:
            raise InputError(f"{source} has the column {min(doubled)!r} twice; rename one.")
        if not isinstance(self.features, str):
            return list(self.features)
        others = {*self.texts, *self.numbers}
        names = [name for name in present if name.startswith(self.features) and name not in others]
        if not names:
            raise InputError(
                f"{source} has no column that begins with {self.features!r}, as features should; it has "
                f"{listed(present)}."
            )
        return names


class Numbering:
    """Values numbered from 0 as they first appear."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    @property
    def values(self) -> list[Any]:
        """The values, by number."""
        return list(self._numbers)

    def numbers(self, codes: Array, values: Iterable[Hashable]) -> Array:
        """The number of each row's value, shape ``(n,)``; rows have codes, which are positions among the values."""
        numbers = [self._numbers.setdefault(value, len(self._numbers)) for value in values]
        return np.array(numbers, dtype=np.int32)[codes]


def batches(path: Path, columns: Columns) -> Iterator[tuple[Any, list[str]]]:
    """Some rows of a file after others, as a ``pyarrow.RecordBatch``, and the names of the columns of features.

    The readers of pyarrow that take an open file and give their batches in order; its `dataset` module takes no .xz
    file, and shows nothing of how far it is.

    Raises:
        InputError: The file lacks a column.
    """
    if kind_of(path) == ".parquet":
        with arrow_parquet.ParquetFile(path) as file:
            features = columns.feature_names(file.schema_arrow.names, str(path))
            wanted = [*features, *columns.texts, *columns.numbers]
            groups = range(file.num_row_groups)
            for group in track(groups, f"Reading {path.name}", total=file.metadata.num_rows):
                for batch in file.iter_batches(batch_size=1 << 14, row_groups=[group], columns=wanted):
                    batch.validate(full=True)  # whether strings are UTF-8, for one
                    yield batch, features
        return
    features = columns.feature_names(_header(path), str(path))
    kinds = dict.fromkeys([*features, *columns.numbers], pa.float32()) | dict.fromkeys(columns.texts, pa.string())
    with (
        _unpacked(path) as content,
        arrow_csv.open_csv(
            pa.PythonFile(content, mode="r"),
            read_options=arrow_csv.ReadOptions(block_size=stored.CHUNK),
            parse_options=arrow_csv.ParseOptions(delimiter=SEPARATORS[kind_of(path)], newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds)),
        ) as reader,
    ):
        for batch in reader:
            yield batch, features


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, with a bar if it is large."""
    small = path.stat().st_size < LONG
    console = Console(stderr=True)
    with open_with_bar(
        path, "rb", description=f"Reading {path.name}", console=console, transient=True, disable=small
    ) as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(IO[bytes], unpacked)
        elif path.suffix == ".xz":
            with lzma.LZMAFile(file) as unpacked:
                yield unpacked
        else:
            yield file


def is_list(kind: Any) -> bool:
    """Whether a column of this type holds a list per row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def floats(path: Path, column: Any, name: str) -> Array:
    """A column as numbers, shape ``(n,)``, float32, NaN where nothing stands.

    Raises:
        InputError: It holds something else.
    """
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise InputError(f"{path}: the column {name!r} holds {column.type}; it should hold numbers.")
    return np.asarray(pc.cast(column, pa.float32(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float32)


def strings(column: Any) -> Any:
    """As strings; whole numbers that were read as floats lose their point, and nothing becomes ""."""
    texts = pc.cast(column, pa.string())
    if pa.types.is_floating(column.type):
        whole = pc.and_(pc.equal(column, pc.round(column)), pc.less(pc.abs(column), float(1 << 63)))
        integers = pc.cast(pc.cast(pc.if_else(whole, column, pa.scalar(0, column.type)), pa.int64()), pa.string())
        texts = pc.if_else(pc.is_nan(column), "", pc.if_else(whole, integers, texts))
    return pc.fill_null(texts, "")


def coded(column: Any) -> tuple[Array, list[str]]:
    """Of each row the code of a string, and the strings."""
    encoded = strings(column).dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def lists(column: Any) -> tuple[Array, Sequence[tuple[str, ...] | None]]:
    """Of each row the code of a set of strings, and the sets, sorted, with "" for null; a string is split at spaces."""
    if not is_list(column.type):
        codes, texts = coded(column)
        return codes, [tuple(text.split()) for text in texts]
    sets = Numbering()
    rows = [
        None if row is None else tuple(sorted({"" if item is None else str(item) for item in row}))
        for row in column.to_pylist()
    ]
    return sets.numbers(np.arange(len(rows)), rows), sets.values


def _header(path: Path) -> list[str]:
    for number, line in read_lines(path):
        try:
            return next(csv.reader([line], delimiter=SEPARATORS[kind_of(path)]), [])
        except csv.Error as error:
            raise InputError(f"{path}, line {number}, is malformed ({error}).") from None
    return []


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, each with the line it begins in. Slow: for finding what is wrong."""
    csv.field_size_limit(1 << 30)
    lines = (f"{line}\n" for _, line in read_lines(path))
    reader = csv.reader(lines, delimiter=SEPARATORS[kind_of(path)], strict=True)
    begin = 1
    try:
        next(reader, None)
        begin = reader.line_num + 1
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {begin}, is malformed ({error}).") from None


def explain(path: Path, columns: Columns) -> None:
    """Find the row that a fast reader stumbled over.

    Raises:
        InputError: This is it.
    """
    header = _header(path)
    numbers = [*columns.feature_names(header, str(path)), *columns.numbers]
    for line, row in csv_rows(path):
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}, has {len(row)} fields, but the header has {len(header)}.")
        for name in numbers:
            value = row[header.index(name)].strip()
            try:
                float(value or "nan")
            except ValueError:
                raise InputError(
                    f"{path}, line {line}: the column {name!r} holds {value!r}; it should be a number."
                ) from None
