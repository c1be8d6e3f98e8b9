"""Rows of tables: csv, tsv, json, parquet, the Hub, memory."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_attn.data.files import COMPRESSED, open_binary, parse_json, read_lines
from lightning_attn.data.tables import JSON, SEPARATORS, Table, empty_value, kind_of, split_of
from lightning_attn.errors import InputError, shown


def read_tables(
    files: Sequence[Path],
    columns: Sequence[str],
    filled: Sequence[str],
    lists: Sequence[str] = (),
    optional: Sequence[str] = (),
    quoting: bool = True,
) -> Table:
    """The rows of one split; other columns than those asked for are not looked at.

    Args:
        files: Files of one kind, read one after another.
        columns: The columns wanted.
        filled: Those of them that may not be empty.
        lists: Those of them where an empty list is a value, such as that of an example of no class.
        optional: Those of them that may be missing or empty, in single rows or in all; see :attr:`Table.gaps`.
        quoting: Whether quotation marks in csv and tsv hold a field together; else they are plain characters.

    Raises:
        InputError: A file is missing, empty, damaged, not UTF-8 or malformed, lacks a column, or has an empty value.
    """
    rows = _Rows(columns, filled, lists, optional, ", ".join(str(file) for file in files))
    for file in files:
        before = len(rows.table.lines)
        if file.stat().st_size == 0:
            raise InputError(f"{file} is empty: it should hold one example per row.")
        kind = kind_of(file)
        if kind in SEPARATORS:
            _read_csv(file, rows, quoting)
        elif kind in JSON:
            _read_json(file, rows)
        else:
            _read_parquet(file, rows)
        if len(rows.table.lines) == before:
            raise InputError(f"{file} has no rows below its header.")
    if len(files) > 1:
        rows.table.lines, rows.table.unit = [*range(1, len(rows.table.lines) + 1)], "row"
    return rows.table


def read_hub(name: str, subset: str | None, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Table]:
    """The splits of a data set of the Hugging Face Hub.

    Raises:
        InputError: It cannot be fetched, or lacks a column.
    """
    import datasets  # takes a second to import, which a run that finds its cache does not have to wait

    try:
        splits = datasets.load_dataset(name, subset)
    except Exception as error:  # whatever the network, the Hub or a broken data set may raise: the name is the cause
        raise InputError(
            f"{name} is no file or folder, and as a data set of the Hub it cannot be loaded "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error
    return _tables_by_name(splits, name, columns, optional)


def read_memory(data: Any, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Table]:
    """The splits of what a notebook has at hand.

    Args:
        data: A pandas DataFrame, a `datasets` Dataset, or a dict of columns, which are ``train``; or a DatasetDict or
            dict of these by the name of their split.
        columns: The columns wanted.
        optional: Those of them that may be missing or empty.

    Raises:
        InputError: It is none of these, or lacks a column.
    """
    if isinstance(data, Mapping) and any(_column_names(value) is not None for value in data.values()):
        return _tables_by_name(data, "data in memory", columns, optional)
    return {"train": _table_of(data, "data in memory", columns, optional)}


def content_digest(tables: Mapping[str, Table]) -> str:
    """SHA-256 of what the tables hold, for the key of the cache where there is no file."""
    state = hashlib.sha256()
    for split, table in tables.items():
        state.update(f"{split}\0{table.columns!r}".encode(errors="surrogatepass"))
    return state.hexdigest()


class _Rows:
    """Collects the rows of one split and checks their values."""

    def __init__(
        self,
        columns: Sequence[str],
        filled: Sequence[str],
        lists: Sequence[str],
        optional: Sequence[str],
        source: str,
    ) -> None:
        self.filled = set(filled)
        self.lists = set(lists)
        self.optional = set(optional)
        self.table = Table({name: [] for name in columns}, source)

    def require(self, present: Sequence[str], place: str) -> None:
        """Refuse a file or row that lacks a column, and note where an optional one is missing."""
        for name in self.table.columns:
            if name not in present:
                sentence = f"{place} has no column {name!r}; it has {', '.join(map(_inert, present))}."
                if name not in self.optional:
                    raise InputError(sentence)
                self.table.gaps.setdefault(name, (len(self.table.lines), sentence))

    def add(self, row: Mapping[str, Any], path: Path | str, number: int) -> None:
        """Take a row; ``path`` and ``number`` say where it stands."""
        for name, values in self.table.columns.items():
            value = row.get(name)
            if value is None or value == "" or value == [] or (isinstance(value, str) and not value.strip()):
                if value == [] and name in self.lists:
                    pass
                elif name in self.optional:
                    value = None
                    if name not in self.table.gaps:
                        self.table.gaps[name] = (len(values), empty_value(name, f"{path}, {self.table.unit} {number}"))
                elif name in self.filled:
                    raise InputError(empty_value(name, f"{path}, {self.table.unit} {number}"))
            elif isinstance(value, dict):
                raise InputError(
                    f"{path}, {self.table.unit} {number}: the {name} is a JSON object; it should be a single value or "
                    "a list."
                )
            values.append(value)
        self.table.lines.append(number)


def _read_csv(path: Path, rows: _Rows, quoting: bool) -> None:
    csv.field_size_limit(1 << 30)  # the default refuses texts of more than 131,072 characters
    reader = csv.reader(
        (f"{line}\n" for _, line in read_lines(path)),
        delimiter=SEPARATORS[kind_of(path)],
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        strict=True,
    )
    header: list[str] = []
    number = 1
    try:
        for row in reader:
            if row and not header:
                header = row
                rows.require(header, str(path))
                places = {name: header.index(name) for name in rows.table.columns if name in header}
            elif row:
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {number}, has {len(row)} fields, but the header has {len(header)}; a field "
                        "with the separator, a quote or a line break in it must stand in quotes."
                    )
                rows.add({name: row[place] for name, place in places.items()}, path, number)
                rows.table.long_rows += reader.line_num > number
            number = reader.line_num + 1  # a row may go over several lines; it is named by its first
    except csv.Error as error:
        remedy = "; if quotation marks are plain characters in this file, set quoting to false" if quoting else ""
        raise InputError(f"{path}, line {number}, is malformed ({error}){remedy}.") from None


def _read_json(path: Path, rows: _Rows) -> None:
    """One object per line, or one array of objects."""
    lines = ((number, line) for number, line in read_lines(path) if line.strip())
    before = len(rows.table.lines)
    for number, line in lines:
        if len(rows.table.lines) == before and line.lstrip().startswith("["):
            content = parse_json("\n".join([line, *(rest for _, rest in lines)]), path, number)
            rows.table.unit = "row"
            for place, row in enumerate(content, 1):
                _add_object(row, rows, path, place)
        else:
            _add_object(parse_json(line, path, number), rows, path, number)


def _add_object(row: Any, rows: _Rows, path: Path, number: int) -> None:
    place = f"{path}, {rows.table.unit} {number}"
    if not isinstance(row, dict):
        raise InputError(f"{place}, should be a JSON object with {', '.join(rows.table.columns)}.")
    if not rows.table.columns.keys() <= row.keys():
        rows.require(list(row), place)
    rows.add(row, path, number)


def _read_parquet(path: Path, rows: _Rows) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]  # comes with `datasets`
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with open_binary(path) as file:
            source = pq.ParquetFile(pa.BufferReader(file.read()) if path.suffix.lower() in COMPRESSED else path)
        schema = source.schema_arrow
        present = [name for name in rows.table.columns if name in schema.names]
        table = source.read(columns=present)
        columns = {name: table.column(name).to_pylist() for name in present}
    except UnicodeDecodeError as error:
        raise InputError(f"{path} holds a string that is not UTF-8 ({error.reason}): write it as UTF-8.") from None
    except Exception as error:  # a damaged file makes pyarrow raise whatever its parts do
        raise InputError(f"{path} cannot be read as .parquet ({_first_line(error)}).") from error
    rows.require(schema.names, str(path))
    if b"huggingface" in (schema.metadata or {}):
        import datasets

        features = datasets.Features.from_arrow_schema(schema)
        columns = {name: _named(values, features.get(name)) for name, values in columns.items()}
    _extend(rows.table, columns, table.num_rows, rows.optional)


def _tables_by_name(
    splits: Mapping[Any, Any], source: str, columns: Sequence[str], optional: Sequence[str]
) -> dict[str, Table]:
    names = {split_name: split_of(str(split_name)) for split_name in splits}
    return {
        split: _table_of(splits[split_name], f"{source}, {split_name}", columns, optional)
        for split_name, split in names.items()
        if split
    }


def _table_of(data: Any, source: str, columns: Sequence[str], optional: Sequence[str]) -> Table:
    """The rows of a Dataset of Hugging Face, a DataFrame or a dict of columns."""
    present = _column_names(data)
    if present is None:
        raise InputError(
            f"{source.capitalize()} should be a DataFrame, a Dataset, or a dict of columns, not {type(data).__name__}."
        )
    rows = _Rows(columns, [], [], optional, source)
    rows.require(present, source)
    values: dict[str, list[Any]] = {}
    for name in columns:
        if name in present:
            column = data.data.column(name) if hasattr(data, "features") else data[name]
            for convert in ("to_pylist", "tolist"):
                column = getattr(column, convert)() if hasattr(column, convert) else column
            values[name] = _named(list(column), data.features[name] if hasattr(data, "features") else None)
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1:
        raise InputError(f"{source.capitalize()} has columns of different lengths; they should have one value per row.")
    _extend(rows.table, values, lengths.pop() if lengths else 0, rows.optional)
    return rows.table


def _extend(table: Table, columns: Mapping[str, list[Any]], count: int, optional: set[str]) -> None:
    """Take columns that are not of text, so that rows have no lines; NaN stands for a missing value there."""
    table.unit = "row"
    before = len(table.lines)
    table.lines += range(before + 1, before + count + 1)
    for name, values in table.columns.items():
        for row, value in enumerate(columns.get(name, [None] * count), before):
            empty = value is None or (isinstance(value, float) and math.isnan(value))
            values.append(None if empty else value)
            if name in optional and (empty or (isinstance(value, str) and not value.strip())):
                values[-1] = None
                table.gaps.setdefault(name, (row, empty_value(name, table.place(row))))


def _column_names(data: Any) -> list[str] | None:
    """Names of the columns of a Dataset of Hugging Face, a DataFrame or a dict of columns; None if it is none."""
    if hasattr(data, "column_names") and hasattr(data, "features"):
        return list(data.column_names)
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return [str(name) for name in data.columns]
    if isinstance(data, Mapping) and all(not isinstance(values, (str, Mapping)) for values in data.values()):
        return [str(name) for name in data] if all(hasattr(values, "__len__") for values in data.values()) else None
    return None


def _named(values: list[Any], feature: Any) -> list[Any]:
    """Class names instead of their numbers, where a data set of Hugging Face knows them."""
    if not hasattr(feature, "int2str"):
        return values
    return [None if value is None or value < 0 else feature.int2str(value) for value in values]


def _inert(name: object) -> str:
    """A column name for messages: what a damaged file has for one may hold line breaks."""
    return str(name) if str(name).isprintable() else shown(str(name))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
