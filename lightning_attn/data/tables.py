"""Tables of texts (csv, tsv, jsonl, parquet, the Hub), read through `datasets` after every line was checked."""

from __future__ import annotations

import csv
import glob
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_attn.data.files import COMPRESSED, read_lines
from lightning_attn.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
KINDS = (*SEPARATORS, ".jsonl", ".parquet")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing"),
}


@dataclass
class Table:
    """Rows of one split.

    Attributes:
        columns: Values of each column asked for.
        source: File or split, for messages.
        lines: Line of each row in its file, or its number among the rows, from 1.
        unit: Which of the two: ``line`` or ``row``.
    """

    columns: dict[str, list[Any]]
    source: str
    lines: list[int]
    unit: str = "line"


def kind_of(path: Path) -> str:
    """The ending that says how a file is to be read, without that of its compression; "" if it is none of ours."""
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    return suffix if suffix in KINDS else ""


def split_of(name: str) -> str | None:
    """The split that a name stands for: ``dev.tsv.xz``, ``reviews_train.csv`` and ``test-00000-of-00001.parquet``."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    found = [split for split, names in SPLIT_NAMES.items() if words & set(names)]
    return found[0] if len(found) == 1 else None


def find_tables(path: Path) -> dict[str, list[Path]]:
    """The files of each split in a folder; a file alone, or the only one without a split in its name, is ``train``.

    Raises:
        InputError: There are none, or it is not clear which to take.
    """
    if path.is_file():
        if not kind_of(path):
            raise InputError(f"{path} is none of {', '.join(KINDS)} (the first three also with .gz or .xz).")
        return {"train": [path]}
    tables = _tables_in(path)
    if not tables:
        raise InputError(f"{path} holds no {', '.join(KINDS)} file.")
    found: dict[str, list[Path]] = {}
    for table in tables:
        if split := split_of(_bare_name(table)):
            found.setdefault(split, []).append(table)
    if not found and len(tables) == 1:
        return {"train": tables}
    if not found:
        raise InputError(
            f"{path} holds {', '.join(table.name for table in tables)}, none named train, val or test; give one file."
        )
    for files in found.values():
        if len({kind_of(file) for file in files}) > 1:
            raise InputError(f"{path} holds {' and '.join(file.name for file in files)} for one split; keep one kind.")
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def ignored_tables(path: Path, found: dict[str, list[Path]]) -> list[Path]:
    """The tables in a folder that :func:`find_tables` did not take, because their names stand for no one split."""
    if path.is_file():
        return []
    taken = {file for files in found.values() for file in files}
    return [table for table in _tables_in(path) if table not in taken]


def read_tables(
    files: Sequence[Path], columns: Sequence[str], filled: Sequence[str], scratch: Path, lists: Sequence[str] = ()
) -> Table:
    """The rows of one split.

    Args:
        files: Files of one kind, read one after another.
        columns: The columns wanted.
        filled: Those of them that may not be empty.
        scratch: Folder in which `datasets` may write while it works.
        lists: Those of ``filled`` where an empty list is a value, such as that of an example of no class.

    Raises:
        InputError: A file is missing, empty, damaged, not UTF-8 or malformed, lacks a column, or has an empty value.
    """
    kind = kind_of(files[0])
    lines: list[int] = []
    header: list[str] = []
    for file in files:
        if file.stat().st_size == 0:
            raise InputError(f"{file} is empty: it should hold one example a row.")
        if kind != ".parquet":
            if kind == ".jsonl":
                numbers = _scan_json(file, columns, filled, lists)
            else:
                names, numbers = _scan_csv(file, columns, filled)
                header = header or names
            lines += numbers
            if not numbers:
                raise InputError(f"{file} has no rows below its header.")
    rows = _load(kind, files, header, scratch)
    _require(columns, rows.column_names, str(files[0]))
    source = ", ".join(str(file) for file in files)
    if len(files) == 1 and lines:
        return Table(_values(rows, columns), source, lines)
    return Table(_values(rows, columns), source, [*range(1, len(rows) + 1)], "row")


def read_hub(name: str, subset: str | None, columns: Sequence[str]) -> dict[str, Table]:
    """The splits of a data set of the Hugging Face Hub.

    Raises:
        InputError: It cannot be fetched, or lacks a column.
    """
    import datasets  # takes a second to import, which a run that finds its cache does not have to wait

    try:
        found = datasets.load_dataset(name, subset)
    except Exception as error:  # whatever the network, the Hub or a broken data set may raise: the name is the cause
        raise InputError(
            f"{name} is no file or folder, and as a data set of the Hub it cannot be loaded "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error
    tables = {}
    for split_name, rows in found.items():
        if split := split_of(str(split_name)):
            _require(columns, rows.column_names, f"{name}, {split_name}")
            numbers = [*range(1, len(rows) + 1)]
            tables[split] = Table(_values(rows, columns), f"{name}, {split_name}", numbers, "row")
    return tables


def _tables_in(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if child.is_file() and kind_of(child)]


def _bare_name(table: Path) -> str:
    """The name without the endings of kind and compression: what else stands behind a dot may be the split."""
    return table.name.removesuffix(table.suffix if table.suffix in COMPRESSED else "").removesuffix(kind_of(table))


def _load(kind: str, files: Sequence[Path], header: Sequence[str], scratch: Path) -> Any:
    import datasets

    options: dict[str, Any] = {}
    if kind in SEPARATORS:
        # as strings: otherwise the review "NA" is a missing value, and the label "01" a number
        features = datasets.Features({name: datasets.Value("string") for name in header})
        options = {"sep": SEPARATORS[kind], "features": features, "keep_default_na": False, "na_filter": False}
    folder = tempfile.mkdtemp(dir=scratch)
    try:
        with _quiet(datasets):
            return datasets.load_dataset(
                "json" if kind == ".jsonl" else "parquet" if kind == ".parquet" else "csv",
                data_files=[glob.escape(str(file)) for file in files],  # it takes them as patterns
                split="train",
                cache_dir=folder,
                download_config=datasets.DownloadConfig(cache_dir=f"{folder}/downloads"),
                **options,
            )
    except Exception as error:  # `datasets` wraps what its readers raise, in classes of its own
        cause = error.__cause__ or error
        raise InputError(f"{files[0]} cannot be read as {kind} ({_first_line(cause)}).") from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No bars of `datasets`: what they count (generating splits) means nothing to our user."""
    shown = datasets.are_progress_bars_enabled() if hasattr(datasets, "are_progress_bars_enabled") else True
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _values(rows: Any, columns: Sequence[str]) -> dict[str, list[Any]]:
    found = {}
    for name in columns:
        values = rows.data.column(name).to_pylist()
        feature = rows.features[name]
        if hasattr(feature, "int2str"):  # class names instead of their numbers
            values = [None if value is None or value < 0 else feature.int2str(value) for value in values]
        found[name] = values
    return found


def _scan_json(path: Path, columns: Sequence[str], filled: Sequence[str], lists: Sequence[str]) -> list[int]:
    numbers = []
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}, is not JSON ({error.msg} at column {error.colno}).") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}, should be a JSON object with {', '.join(columns)}.")
        _require(columns, list(row), f"{path}, line {number}")
        for name in filled:
            if name not in lists or row[name] != []:
                _check_value(row[name], name, path, number)
        numbers.append(number)
    return numbers


def _scan_csv(path: Path, columns: Sequence[str], filled: Sequence[str]) -> tuple[list[str], list[int]]:
    csv.field_size_limit(1 << 30)  # the default refuses texts of more than 131,072 characters
    rows = csv.reader((f"{line}\n" for _, line in read_lines(path)), delimiter=SEPARATORS[kind_of(path)], strict=True)
    numbers: list[int] = []
    header: list[str] = []
    number = 1
    try:
        for row in rows:
            if not header:
                header = row
                _require(columns, header, str(path))
                places = {name: header.index(name) for name in filled}
            elif row:
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {number}, has {len(row)} fields, but the header has {len(header)}; a field "
                        "with the separator, a quote or a line break in it must stand in quotes."
                    )
                for name, place in places.items():
                    _check_value(row[place], name, path, number)
                numbers.append(number)
            number = rows.line_num + 1  # a row may go over several lines; it is named by its first
    except csv.Error as error:
        raise InputError(f"{path}, line {number}, is malformed ({error}).") from None
    return header, numbers


def _check_value(value: Any, name: str, path: Path, number: int) -> None:
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        raise InputError(f"{path}, line {number}: the {name} is empty; fill it in or remove the row.")
    if isinstance(value, dict):  # `datasets` would hand it on as text
        raise InputError(f"{path}, line {number}: the {name} is a JSON object; it should be a single value or a list.")


def _require(columns: Sequence[str], present: Sequence[str], place: str) -> None:
    for name in columns:
        if name not in present:
            raise InputError(f"{place} has no column {name!r}; it has {', '.join(present)}.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
