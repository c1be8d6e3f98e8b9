"""Which file of a folder of tables is which split, and the rows of a split: `Table`, `find_tables`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_attn.data.files import COMPRESSED
from lightning_attn.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON = (".jsonl", ".json")
KINDS = (*SEPARATORS, *JSON, ".parquet")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing"),
}


@dataclass
class Table:
    """Rows of one split.

    Attributes:
        columns: Values of each column that was asked for; None where an optional one has none.
        source: File or split, for messages.
        lines: Line of each row in its file, or its number among the rows, from 1.
        unit: Which of the two: ``line`` or ``row``.
        gaps: For each optional column the first row without a value, from 0, and the sentence on it.
        long_rows: Rows that go over several lines of their file, held together by quotation marks.
    """

    columns: dict[str, list[Any]]
    source: str
    lines: list[int] = field(default_factory=list)
    unit: str = "line"
    gaps: dict[str, tuple[int, str]] = field(default_factory=dict)
    long_rows: int = 0

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.source}, {self.unit} {self.lines[row]}"

    def refuse_gap(self, column: str, row: int) -> None:
        """Say that an optional column, which is needed here after all, has no value.

        Raises:
            InputError: Always.
        """
        first, sentence = self.gaps.get(column, (row, ""))
        raise InputError(sentence if sentence and first == row else empty_value(column, self.place(row)))


def kind_of(path: Path) -> str:
    """The ending that says how a file is to be read, without that of its compression; "" if it is none of ours."""
    name = Path(path.name.lower())
    suffix = Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
    return suffix if suffix in KINDS else ""


def split_of(name: str) -> str | None:
    """The split that a name stands for: ``dev.tsv.xz``, ``reviews_train.csv`` and ``test-00000-of-00001.parquet``."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    splits = [split for split, names in SPLIT_NAMES.items() if words & set(names)]
    return splits[0] if len(splits) == 1 else None


def find_tables(path: Path) -> dict[str, list[Path]]:
    """The files of each split in a folder; a file alone, or the only one without a split in its name, is ``train``.

    Hidden files are no data. Files named .json count where they stand for a split, or are all that there is: others
    hold settings.

    Raises:
        InputError: There are none, or it is not clear which to take.
    """
    if path.is_file():
        if not kind_of(path):
            raise InputError(f"{path} is none of {', '.join(KINDS)} (all but .parquet also with .gz or .xz).")
        return {"train": [path]}
    tables = _tables_in(path)
    if not tables:
        raise InputError(f"{path} holds no .csv, .tsv, .jsonl, .parquet file, nor one of .json.")
    by_split: dict[str, list[Path]] = {}
    for table in tables:
        if split := split_of(_bare_name(table)):
            by_split.setdefault(split, []).append(table)
    if not by_split:
        tables = [table for table in tables if kind_of(table) != ".json"] or tables
        if len(tables) == 1:
            return {"train": tables}
        raise InputError(
            f"{path} holds {', '.join(table.name for table in tables)}, none named train, val or test; give one file."
        )
    for files in by_split.values():
        if len({kind_of(file) for file in files}) > 1:
            raise InputError(f"{path} holds {' and '.join(file.name for file in files)} for one split; keep one kind.")
    return {split: by_split[split] for split in SPLIT_NAMES if split in by_split}


def ignored_tables(path: Path, taken: Mapping[str, Sequence[Path]]) -> list[Path]:
    """The tables in a folder that :func:`find_tables` did not take, because their names stand for no one split."""
    if path.is_file():
        return []
    files = {file for split in taken.values() for file in split}
    return [table for table in _tables_in(path) if table not in files]


def _tables_in(folder: Path) -> list[Path]:
    return [
        child
        for child in sorted(folder.iterdir())
        if child.is_file() and kind_of(child) and not child.name.startswith(".")
    ]


def _bare_name(table: Path) -> str:
    """The name without the endings of kind and compression: what else stands behind a dot may be the split."""
    name = table.name.lower()
    return name.removesuffix(table.suffix.lower() if table.suffix.lower() in COMPRESSED else "").removesuffix(
        kind_of(table)
    )


def empty_value(name: str, place: str) -> str:
    """The sentence on a value that is missing."""
    return f"{place}: the {name} is empty; fill it in or remove the row."
