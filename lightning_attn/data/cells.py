"""What the cells of a table say, whoever wrote them: labels, evidence, spans of characters."""

from __future__ import annotations

import ast
import datetime
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lightning_attn.data.labels import Label, names_of
from lightning_attn.errors import InputError, shown

Place = Callable[[int], str]  # where a row stands, for messages
_WHOLE = re.compile(r"([+-]?\d+)(?:\.0+)?")


def is_unlabelled(labels: Sequence[Any], classes: Collection[str]) -> bool:
    """Whether no row of a split has a label: all are empty, or -1 without that being a class of the training rows."""
    absent = ("", "-1", "-1.0") if "-1" not in classes else ("",)
    return all(label is None or (not isinstance(label, list) and str(label).strip() in absent) for label in labels)


def read_labels(
    splits: Mapping[str, tuple[Sequence[Any], Place]], column: str, names: Mapping[str, str] | None = None
) -> tuple[dict[str, list[Label]], list[str]]:
    """Labels of all splits as one person would have meant them, and sentences on what was read otherwise than written.

    White space around a label is no part of it. A cell that holds the text of a list (``"['a', 'b']"``, as pandas
    writes it) is that list. Whole numbers written with ``.0`` in all rows are whole numbers. Lists that hold 0 and 1
    only, all of one length, are columns, one per class, whose names are the numbers of the columns from 0.

    Args:
        splits: Of each split the cells, and where they stand.
        column: Name of the column, for messages.
        names: From labels to the names to show; a label that stands in it is taken as it is. None for no names.

    Raises:
        InputError: A cell is neither a class name nor a whole number nor a list of such, or ``names`` lacks it.
    """
    kept = names or {}
    labels = {
        split: [_label(cell, place(row), column, kept) for row, cell in enumerate(cells)]
        for split, (cells, place) in splits.items()
    }
    notes = []
    strings = [cell for cells, _ in splits.values() for cell in cells if isinstance(cell, str) and cell not in kept]
    stripped = sum(cell != cell.strip() for cell in strings)
    if stripped:
        notes.append(f"{stripped:,} labels lost the white space around them.")
    present = {name for values in labels.values() for label in values for name in names_of(label)}
    if any("." in name for name in present) and all(_WHOLE.fullmatch(name) for name in present) and not kept:
        labels = {split: [_map(label, _whole) for label in values] for split, values in labels.items()}
        notes.append("Labels are whole numbers written with a decimal point: 0.0 is read as 0.")
    if width := _indicator_width(labels, {split: place for split, (_, place) in splits.items()}):
        labels = {
            split: [[number for number, value in enumerate(label) if value] for label in values]  # type: ignore[arg-type]
            for split, values in labels.items()
        }
        notes.append(f"Labels are lists of 0 and 1, one column per class: {width} classes.")
    if names is not None:
        for split, values in labels.items():
            place = splits[split][1]
            for row, label in enumerate(values):
                for name in names_of(label):
                    if name not in names:
                        keys = ", ".join(repr(key) for key in names)
                        raise InputError(f"{place(row)}: unknown label {name!r}; class_names has {keys}.")
        labels = {split: [_map(label, names.__getitem__) for label in values] for split, values in labels.items()}
    return labels, notes


def read_evidence(cell: Any, words: int, place: str) -> list[float]:
    """One number per word: a list, or a text such as ``0 1 0`` or ``[0, 1, 0]``; NaN throughout where there is none.

    Raises:
        InputError: The cell is no such list.
    """
    if cell is None or cell == []:
        return [math.nan] * words
    try:
        pieces = re.split(r"[\s,]+", cell.strip().strip("[]").strip()) if isinstance(cell, str) else list(cell)
        if pieces in ([""], []):
            return [math.nan] * words
        return [math.nan if piece is None else float(piece) for piece in pieces]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{place}: evidence should be one number per word, not {shown(str(cell))}.") from None


def read_spans(cell: Any, length: int, place: str) -> list[tuple[int, int]]:
    """Spans of characters, first and one after the last: ``[[0, 4], [9, 12]]``, as a list or as its text.

    Raises:
        InputError: The cell holds no such spans, or they go beyond a text of ``length`` characters.
    """
    try:
        spans = json.loads(cell) if isinstance(cell, str) else cell
        pairs = [
            (span["start"], span["end"]) if isinstance(span, dict) else tuple(span)
            for span in ([] if spans is None else spans)
        ]
        if not all(len(pair) == 2 and all(type(end) is int for end in pair) for pair in pairs):
            raise TypeError
    except (TypeError, ValueError, KeyError, RecursionError):
        raise InputError(
            f"{place}: spans should be pairs of characters, first and one after the last, such as [[0, 4]], not "
            f"{shown(str(cell))}."
        ) from None
    for start, end in pairs:
        if not 0 <= start < end <= length:
            raise InputError(f"{place}: the span [{start}, {end}] is none of a text of {length} characters.")
    return pairs


def mark_words(words: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[float]:
    """1 on words that a span touches, 0 on the others; NaN on all where there are no spans."""
    if not spans:
        return [math.nan] * len(words)
    return [float(any(start < last and first < end for start, end in spans)) for first, last in words]


def _label(cell: Any, place: str, column: str, kept: Collection[str]) -> Label:
    if isinstance(cell, str) and cell not in kept:
        cell = cell.strip()
        if cell.startswith("[") and cell.endswith("]"):
            cell = _list_in(cell)
    if isinstance(cell, (list, tuple)):
        return [_single(value, place, column) for value in cell]  # type: ignore[return-value]
    return _single(cell, place, column)


def _list_in(text: str) -> Any:
    """The list that a text writes, or the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return value if all(isinstance(item, (str, int, float)) for item in value) else text


def _single(value: Any, place: str, column: str) -> str | int:
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with a gap becomes float
        return int(value)
    if isinstance(value, datetime.date):  # of parquet; datetime is one too
        return value.isoformat()
    if not isinstance(value, (str, int)):
        raise InputError(f"{place}: the {column} should be a class name or a whole number, not {shown(str(value))}.")
    return value.strip() if isinstance(value, str) else value


def _whole(name: str) -> str:
    match = _WHOLE.fullmatch(name)
    assert match is not None
    return match[1]


def _map(label: Label, change: Callable[[str], str]) -> Label:
    return [change(name) for name in names_of(label)] if isinstance(label, list) else change(str(label))


def _indicator_width(labels: Mapping[str, Sequence[Label]], places: Mapping[str, Place]) -> int:
    """Number of classes if all labels are lists of 0 and 1, one column per class; 0 if they are something else.

    Raises:
        InputError: A list of numbers names a class twice, as a column of 0 and 1 would, but is none.
    """
    every = [label for values in labels.values() for label in values]
    lists = [label for label in every if isinstance(label, list)]
    widths = {len(label) for label in lists}
    columns = lists and len(lists) == len(every) and len(widths) == 1 and max(widths) >= 2
    if columns and all(str(value) in ("0", "1", "True", "False") for label in lists for value in label):
        return widths.pop()
    for split, values in labels.items():
        for row, label in enumerate(values):
            if isinstance(label, list) and len(set(label)) < len(label):
                raise InputError(
                    f"{places[split](row)}: the list of labels {shown(str(label))} names a class twice; write class "
                    "names, or one 0 or 1 per class in all rows."
                )
    return 0
