"""Premise and hypothesis, in the layouts that SNLI and its relatives come in: `NLIDataModule`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import existing, parse_json, read_lines
from lightning_attn.data.table_rows import read_tables
from lightning_attn.data.tables import SEPARATORS, kind_of, split_of
from lightning_attn.errors import InputError

UNDECIDED = "-"  # what SNLI writes where the annotators did not agree
SPLIT = "exp_split"


class _Layout(NamedTuple):
    premise: str
    hypothesis: str
    labels: tuple[str, ...]  # the first of them that holds names


LAYOUTS = (_Layout("sentence1", "sentence2", ("gold_label",)), _Layout("document", "query", ("label_id", "label")))


class NLIDataModule(CorpusDataModule):
    """Pairs of premise and hypothesis with the name of their relation, from one file per split.

    Reads csv, tsv and jsonl files (``.gz`` and ``.xz`` too) with the columns ``sentence1``, ``sentence2``,
    ``gold_label`` (SNLI, MultiNLI, counterfactual NLI) or ``document``, ``query``, ``label_id`` or ``label``; the files
    may differ in that. The premise is the text, which is attended and explained; the hypothesis is the query. Pairs
    labelled ``-`` are left out and counted. A file whose column ``exp_split`` names several splits gives the rows of
    the split that it is named for. For columns of other names take ``TextDataModule`` with its ``query``.

    Source: Bowman et al., EMNLP 2015, https://arxiv.org/abs/1508.05326

    Args:
        train: File of the training pairs.
        val: File of the validation pairs; None goes without.
        test: File of the test pairs; None goes without.
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.
    """

    def __init__(
        self,
        train: str | Path,
        val: str | Path | None = None,
        test: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        paths = {"train": train, "val": val, "test": test}
        self.paths = {split: path for split, path in paths.items() if path is not None}

    def settings(self) -> dict[str, Any]:
        """Which splits the files are for."""
        return {"splits": list(self.paths)}

    def files(self) -> list[Path]:
        """The file of each split."""
        return [existing(path, f"file of {split} pairs") for split, path in self.paths.items()]

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The pairs of each file."""
        notes: list[str] = []
        splits = {}
        for split, path in zip(self.paths, self.files(), strict=True):
            splits[split] = self._read_file(path, split, notes)
        return splits, notes

    def _read_file(self, path: Path, split: str, notes: list[str]) -> Examples:
        present = _columns(path)
        layout = _layout(path, present)
        labels = [name for name in layout.labels if name in present]
        sentences = [layout.premise, layout.hypothesis]
        wanted = [*sentences, *labels, *([SPLIT] if SPLIT in present else [])]
        table = read_tables([path], wanted, [*sentences, *labels])
        label = next((name for name in labels if not _all_numbers(table.columns[name])), None)
        if label is None:
            raise InputError(
                f"{path}: the column {labels[0]!r} holds numbers, which mean different things in different releases; "
                "it should hold names, such as entailment, neutral and contradiction."
            )
        examples = Examples(
            texts=table.columns[layout.premise],
            labels=table.columns[label],
            source=table.source,
            queries=table.columns[layout.hypothesis],
            lines=table.lines,
            unit=table.unit,
        )
        rows = list(range(len(examples)))
        if SPLIT in present:
            rows = _of_split(table.columns[SPLIT], split, path)
        kept = [row for row in rows if examples.labels[row] != UNDECIDED]
        if not kept:
            raise InputError(f"{path} has no {split} pair with a label other than {UNDECIDED!r}.")
        if len(kept) < len(rows):
            notes.append(
                f"{split}: {len(rows) - len(kept):,} of {len(rows):,} pairs are left out: their label is {UNDECIDED!r}."
            )
        return examples.take(np.array(kept))


def _columns(path: Path) -> list[str]:
    """Names in the first line of a table, which is looked at before it is known what to read."""
    kind = kind_of(path)
    if kind not in (*SEPARATORS, ".jsonl"):
        raise InputError(f"{path} is none of .csv, .tsv, .jsonl (each also with .gz or .xz).")
    number, line = next((numbered for numbered in read_lines(path) if numbered[1].strip()), (1, ""))
    if kind in SEPARATORS:
        try:
            return next(csv.reader([line], delimiter=SEPARATORS[kind]), [])
        except csv.Error as error:
            raise InputError(f"{path}, line {number}, is malformed ({error}).") from None
    row = parse_json(line, path, number)
    return list(row) if isinstance(row, dict) else []


def _layout(path: Path, present: Sequence[str]) -> _Layout:
    layout = next((layout for layout in LAYOUTS if layout.premise in present), None)
    layouts = " or ".join(f"{each.premise}, {each.hypothesis}, {each.labels[0]}" for each in LAYOUTS)
    if layout is None:
        raise InputError(
            f"{path} has the columns {', '.join(present)}; premise, hypothesis and label should be called {layouts} "
            "(TextDataModule takes other names)."
        )
    if layout.hypothesis not in present:
        raise InputError(
            f"{path} has the premises {layout.premise!r}, but no column {layout.hypothesis!r} for the hypotheses."
        )
    if not set(layout.labels) & set(present):
        raise InputError(f"{path} has no column {layout.labels[0]!r} for the labels; it has {', '.join(present)}.")
    return layout


def _all_numbers(values: Sequence[Any]) -> bool:
    return all(str(value).lstrip("-").isdecimal() for value in values)


def _of_split(values: Sequence[Any], split: str, path: Path) -> list[int]:
    """Rows of a split, or all of them if the file is of one split only: what that is called is the user's affair."""
    if len(set(values)) == 1:
        return list(range(len(values)))
    rows = [row for row, value in enumerate(values) if split_of(str(value)) == split]
    if not rows:
        names = ", ".join(sorted({str(value) for value in values}))
        raise InputError(f"{path} has no {split} pairs: its column {SPLIT!r} says {names}.")
    return rows
