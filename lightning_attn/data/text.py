"""Texts from a table of your own or from the Hub: `TextDataModule`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_attn.data.cells import is_unlabelled, mark_words, read_evidence, read_labels, read_spans
from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import COMPRESSED
from lightning_attn.data.labels import Label, drawn, stratified
from lightning_attn.data.processor import Text
from lightning_attn.data.table_rows import content_digest, read_hub, read_memory, read_tables
from lightning_attn.data.tables import KINDS, Table, find_tables, ignored_tables, split_of
from lightning_attn.data.word_processor import word_spans
from lightning_attn.errors import InputError


class TextDataModule(CorpusDataModule):
    """Texts and labels from csv, tsv, jsonl or parquet files, or from a data set of the Hugging Face Hub.

    Splits are found by name: a file, a Hub split or a value of the ``split`` column with the word train, or val,
    valid, validation or dev, or test in it. A split that is not found is carved from train, with about equal shares
    of each class and equal texts kept on one side, by ``seed`` alone; the notes say so. Test rows without any label (an
    empty or missing column, or -1) are kept for ``predict``; such validation rows are left out.

    Args:
        path: A file, a folder, or the id of a data set of the Hub; in Python also a DataFrame, a Dataset or a dict of
            columns, or a DatasetDict or dict of these by split.
        text: Column of the texts: strings, or lists of words (jsonl, parquet).
        label: Column of the labels: strings or whole numbers, or lists of them where an example may belong to several
            classes, or lists with one 0 or 1 per class. See :func:`~lightning_attn.data.cells.read_labels`.
        query: Column of the hypotheses or questions; None for single texts.
        evidence: Column with one number in [0, 1] per word, a list or separated by spaces; a text that is a string is
            then split at white space. Empty, null or ``[]`` where unknown. None if there is none.
        split: Column that says which split a row belongs to; None finds splits by the names of files.
        subset: Name of the configuration of a Hub data set that has several.
        class_names: Label as it stands in the data (number of the column, where labels are lists of 0 and 1), to name
            to show; their order is that of the logits. None takes the labels themselves.
        val_share: Part of train that becomes ``val`` if there is none, in [0, 1); 0 goes without.
        test_share: Part of train that becomes ``test`` if there is none, in [0, 1); 0 goes without.
        max_examples: At most so many examples of each split, drawn by ``seed`` with all classes, if there is room for
            one of each; None takes all.
        quoting: Whether quotation marks in csv and tsv hold a field together; false for files where they are plain
            characters, as in the GLUE benchmark.
        spans: Column with the evidence as spans of characters, ``[[start, end], ...]``, of texts that are strings;
            these are then split into words and punctuation. 1 on words that a span touches, 0 on the others. Empty,
            null or ``[]`` where unknown. None if there is none.
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.
    """

    def __init__(
        self,
        path: str | Path | Any,
        text: str = "text",
        label: str = "label",
        query: str | None = None,
        evidence: str | None = None,
        split: str | None = None,
        subset: str | None = None,
        class_names: dict[str, str] | None = None,
        val_share: float = 0.1,
        test_share: float = 0.1,
        max_examples: int | None = None,
        quoting: bool = True,
        spans: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.text = text
        self.label = label
        self.query = query
        self.evidence = evidence
        self.split = split
        self.subset = subset
        self.class_names = None if class_names is None else {str(key): name for key, name in class_names.items()}
        self.shares = {"val": val_share, "test": test_share}
        self.max_examples = max_examples
        self.quoting = quoting
        self.spans = spans
        if evidence is not None and spans is not None:
            raise InputError(f"Give evidence ({evidence!r}, a number per word) or spans ({spans!r}), not both.")
        if min(val_share, test_share) < 0 or val_share + test_share >= 1:
            raise InputError(
                f"val_share {val_share} and test_share {test_share} must be 0 or more and add up to below 1."
            )
        if max_examples is not None and max_examples < 1:
            raise InputError(f"max_examples must be 1 or more, not {max_examples}.")

    def classes(self) -> list[str] | None:
        """The names in ``class_names``; None if there are none given."""
        return None if self.class_names is None else list(self.class_names.values())

    def settings(self) -> dict[str, Any]:
        """Columns, splits and the like; which file is which split; of a Hub data set its id, because it is no file."""
        local = self._local()
        tables = {} if local is None else find_tables(local)
        in_memory = not isinstance(self.path, (str, Path))
        return {
            "hub": None if local or in_memory else str(self.path),
            "memory": content_digest(self._tables()) if in_memory else None,
            "tables": {split: [file.name for file in files] for split, files in tables.items()},
            "ignored": [] if local is None else [table.name for table in ignored_tables(local, tables)],
            "columns": [self.text, self.label, self.query, self.evidence, self.spans, self.split],
            "subset": self.subset,
            "class_names": None if self.class_names is None else list(self.class_names.items()),
            "shares": self.shares,
            "max_examples": self.max_examples,
            "quoting": self.quoting,
            "seed": self.seed,
        }

    def files(self) -> list[Path]:
        """The tables of all splits; none for a Hub data set or data in memory."""
        local = self._local()
        return [] if local is None else [file for files in find_tables(local).values() for file in files]

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The rows as they are, divided into splits."""
        tables = self._tables()
        notes = [self._origin(tables)]  # no folder: the notes are cached, and the data may be moved
        if ignored := self.settings()["ignored"]:
            notes.append(f"Ignored {', '.join(ignored)}: not named after one split (train, val or test).")
        for split, table in tables.items():
            if table.long_rows:
                notes.append(f"{split}: {table.long_rows:,} rows go over several lines, held together by quotes.")
        labels = self._labels(tables, notes)
        splits = {split: self._examples(table, labels.get(split)) for split, table in tables.items()}
        self._carve(splits, notes)
        if self.max_examples is not None:
            for split, examples in splits.items():
                if len(examples) > self.max_examples:
                    splits[split] = examples.take(drawn(examples.labels, self.max_examples, self.seed))
                    notes.append(
                        f"{split}: {len(splits[split]):,} of {len(examples):,} examples drawn by seed {self.seed}."
                    )
        return splits, notes

    def _local(self) -> Path | None:
        if not isinstance(self.path, (str, Path)):
            return None
        path = Path(self.path).expanduser()
        if path.exists():
            return path
        name = str(self.path)
        if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.lower().endswith((*KINDS, *COMPRESSED)):
            raise InputError(f"There is no file or folder {path}.")
        return None

    def _origin(self, tables: dict[str, Table]) -> str:
        """Which files became which split."""
        local = self._local()
        if local is None:
            return f"Found {', '.join(tables)}."
        files = {split: " and ".join(file.name for file in files) for split, files in find_tables(local).items()}
        if self.split is not None:
            return f"Found {', '.join(tables)} by the column {self.split!r} of {', '.join(files.values())}."
        return f"Found {', '.join(tables)}: {'; '.join(f'{split} is {names}' for split, names in files.items())}."

    def _tables(self) -> dict[str, Table]:
        filled = [name for name in (self.text, self.query) if name is not None]
        optional = [name for name in (self.label, self.evidence, self.spans) if name is not None]
        columns = [*filled, *optional, *([] if self.split is None else [self.split])]
        local = self._local()
        if not isinstance(self.path, (str, Path)):
            tables = read_memory(self.path, columns, optional)
        elif local is None:
            tables = read_hub(str(self.path), self.subset, columns, optional)
        else:
            tables = {
                split: read_tables(files, columns, filled, [self.label], optional, self.quoting)
                for split, files in find_tables(local).items()
            }
        name = self.evidence or self.spans
        if name is not None and not any(cell is not None for table in tables.values() for cell in table.columns[name]):
            next(iter(tables.values())).refuse_gap(name, 0)
        return tables if self.split is None else self._divided(tables, self.split)

    def _divided(self, tables: dict[str, Table], column: str) -> dict[str, Table]:
        """The rows by what their column of splits says."""
        divided: dict[str, Table] = {}
        for table in tables.values():
            for row, value in enumerate(table.columns[column]):
                split = split_of(str(value))
                if split is None:
                    raise InputError(
                        f"{table.place(row)}: the column {column!r} holds {value!r}, which names no split; it should "
                        "be train, val or test."
                    )
                empty = Table({name: [] for name in table.columns}, table.source, unit=table.unit)
                part = divided.setdefault(split, empty)
                for name, values in part.columns.items():
                    values.append(table.columns[name][row])
                part.lines.append(table.lines[row])
        return {split: divided[split] for split in ("train", "val", "test") if split in divided}

    def _labels(self, tables: dict[str, Table], notes: list[str]) -> dict[str, list[Label]]:
        """Labels of each split that has some; a validation split without is taken out of the tables."""
        classes = set(self.class_names or ())
        if "train" in tables:
            classes |= {str(label).strip() for label in tables["train"].columns[self.label]}
        without = [
            split
            for split, table in tables.items()
            if split != "train" and is_unlabelled(table.columns[self.label], classes)
        ]
        if "val" in without:
            del tables["val"]
            notes.append("The val split has no labels, so it is left out.")
        labelled = {split: table for split, table in tables.items() if split not in without}
        for table in labelled.values():
            for row, label in enumerate(table.columns[self.label]):
                if label is None:
                    table.refuse_gap(self.label, row)
        cells = {split: (table.columns[self.label], table.place) for split, table in labelled.items()}
        labels, changes = read_labels(cells, self.label, self.class_names)
        notes += changes
        return labels

    def _examples(self, table: Table, labels: list[Label] | None) -> Examples:
        count = len(table.lines)
        texts = [self._text(table, self.text, row) for row in range(count)]
        queries = None if self.query is None else [self._text(table, self.query, row) for row in range(count)]
        evidence: list[Sequence[float]] | None = None
        if self.evidence is not None:
            words = [text.split() if isinstance(text, str) else text for text in texts]
            texts, evidence = list(words), []
            for row, cell in enumerate(table.columns[self.evidence]):
                evidence.append(read_evidence(cell, len(words[row]), table.place(row)))
        elif self.spans is not None:
            evidence = []
            for row, cell in enumerate(table.columns[self.spans]):
                text = texts[row]
                if not isinstance(text, str):
                    raise InputError(f"{table.place(row)}: {self.spans} counts characters, but the text is a list.")
                places = word_spans(text)
                texts[row] = [text[start:end] for start, end in places]
                evidence.append(mark_words(places, read_spans(cell, len(text), table.place(row))))
        return Examples(
            texts,
            labels=[""] * count if labels is None else labels,
            source=table.source,
            evidence=evidence,
            queries=queries,
            lines=table.lines,
            unit=table.unit,
            labelled=labels is not None,
        )

    def _text(self, table: Table, column: str, row: int) -> Text:
        value = table.columns[column][row]
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            return value
        raise InputError(f"{table.place(row)}: the {column} should be a text or a list of words, not {value!r}.")

    def _carve(self, splits: dict[str, Examples], notes: list[str]) -> None:
        """Make the missing splits from train; each share is of all that train had at first."""
        if "train" not in splits:
            return
        whole = len(splits["train"])
        for split, share in self.shares.items():
            if split in splits or share == 0:
                continue
            train = splits["train"]
            groups = [text if isinstance(text, str) else "\0".join(text) for text in train.texts]
            stay, leave = stratified(train.labels, groups, share * whole / len(train), self.seed)
            if len(leave) == 0 and round(share * whole) >= 2 and len(set(groups)) < len(groups) / 2:
                notes.append(
                    f"No {split} split: the {len(train):,} training examples are {len(set(groups)):,} texts over and "
                    "over, which stay on one side."
                )
                continue
            if len(leave) == 0:
                raise InputError(
                    f"There is no {split} split, and {len(train)} training examples are too few to carve {share:g} "
                    f"from each class; give one, or set {split}_share to 0."
                )
            splits[split], splits["train"] = train.take(leave), train.take(stay)
            notes.append(
                f"No {split} split was found: {len(leave):,} of {whole:,} training examples, by seed {self.seed}."
            )
