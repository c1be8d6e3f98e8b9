"""Tables of instances in parts that fit into memory: `csv_parts`, `parquet_parts`, and where a row stands."""

from __future__ import annotations

import csv
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import csv as arrow_csv
from pyarrow import parquet as arrow_parquet
from rich.console import Console
from rich.progress import open as open_with_bar

from lightning_attn.data.bags.files import ending
from lightning_attn.data.bags.store import CHUNK
from lightning_attn.data.bags.table_columns import Columns
from lightning_attn.data.files import read_lines
from lightning_attn.data.progress import track
from lightning_attn.data.tables import SEPARATORS
from lightning_attn.errors import InputError

LONG = 50_000_000  # bytes; less is read before a bar could be
DAMAGED = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)


def table_parts(path: Path, columns: Columns) -> Iterator[tuple[list[str], Any]]:
    """The names of the columns of features, and some rows as a ``pyarrow.RecordBatch``, until the file ends.

    Raises:
        InputError: The file is empty, damaged or malformed, or lacks a column.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: it should hold one instance a row.")
    return _parquet_parts(path, columns) if ending(path) == ".parquet" else _csv_parts(path, columns)


def place_of(path: Path, row: int) -> str:
    """Where row ``row``, counted from 0, of a table stands, for messages."""
    if ending(path) == ".parquet":
        return f"{path}, row {row + 1}"
    for number, (line, _) in enumerate(_rows(path)):
        if number == row:
            return f"{path}, line {line}"
    raise IndexError(row)


def _csv_parts(path: Path, columns: Columns) -> Iterator[tuple[list[str], Any]]:
    header = _header(path)
    features = columns.feature_names(header, str(path))
    kinds = {name: pa.float32() for name in (*features, *columns.numbers)} | {
        name: pa.string() for name in columns.texts
    }
    options = {
        "read_options": arrow_csv.ReadOptions(block_size=CHUNK),
        "parse_options": arrow_csv.ParseOptions(delimiter=SEPARATORS[ending(path)], newlines_in_values=True),
        "convert_options": arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds)),
    }
    count = 0
    with _unpacked(path) as file:
        try:
            with arrow_csv.open_csv(pa.PythonFile(file, mode="r"), **options) as reader:
                for batch in reader:
                    count += len(batch)
                    yield features, batch
        except (pa.ArrowInvalid, *DAMAGED) as error:
            _explain(path, header, [*features, *columns.numbers])
            raise InputError(f"{path} cannot be read as {ending(path)} ({str(error).splitlines()[0]}).") from error
    if count == 0:
        raise InputError(f"{path} has no rows below its header.")


def _parquet_parts(path: Path, columns: Columns) -> Iterator[tuple[list[str], Any]]:
    try:
        with arrow_parquet.ParquetFile(path) as file:
            features = columns.feature_names(file.schema_arrow.names, str(path))
            wanted = [*features, *columns.texts, *columns.numbers]
            if file.metadata.num_rows == 0:
                raise InputError(f"{path} has no rows.")
            groups = range(file.num_row_groups)
            for group in track(groups, f"Reading {path.name}", total=file.metadata.num_rows):
                for batch in file.iter_batches(batch_size=1 << 14, row_groups=[group], columns=wanted):
                    yield features, batch
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as .parquet ({str(error).splitlines()[0].rstrip('.')}).") from error


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


def _header(path: Path) -> list[str]:
    for _, line in read_lines(path):
        return next(csv.reader([line], delimiter=SEPARATORS[ending(path)]), [])
    return []


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, each with the line it begins in. Slow: for finding what is wrong."""
    csv.field_size_limit(1 << 30)
    lines = (f"{line}\n" for _, line in read_lines(path))
    reader = csv.reader(lines, delimiter=SEPARATORS[ending(path)], strict=True)
    next(reader)
    begin = reader.line_num + 1
    try:
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {begin}, is malformed ({error}).") from None


def _explain(path: Path, header: list[str], numbers: list[str]) -> None:
    """Find the row that a fast reader stumbled over.

    Raises:
        InputError: This is it.
    """
    for line, row in _rows(path):
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
