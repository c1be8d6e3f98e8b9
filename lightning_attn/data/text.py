"""Texts from a table of your own or from the Hub: `TextDataModule`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_attn.data import cache
from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import COMPRESSED
from lightning_attn.data.labels import Label, drawn, names_of, stratified
from lightning_attn.data.processor import Text
from lightning_attn.data.tables import KINDS, Table, find_tables, ignored_tables, read_hub, read_tables, split_of
from lightning_attn.errors import InputError


class TextDataModule(CorpusDataModule):
    """Texts and labels from csv, tsv, jsonl or parquet files, or from a data set of the Hugging Face Hub.

    Splits are found by name: a file, a Hub split or a value of the ``split`` column with the word train, or val,
    valid, validation or dev, or test in it. A split that is not found is carved from train, with about equal shares
    of each class and equal texts kept on one side, by ``seed`` alone; the notes say so.

    Args:
        path: A file, a folder, or the id of a data set of the Hub.
        text: Column of the texts: strings, or lists of words (jsonl, parquet).
        label: Column of the labels: strings or whole numbers, or lists of them (jsonl, parquet) where an example may
            belong to several classes.
        query: Column of the hypotheses or questions; None for single texts.
        evidence: Column with one number in [0, 1] a word, a list or separated by spaces; a text that is a string is
            then split at white space. None if there is none.
        split: Column that says which split a row belongs to; None finds splits by the names of files.
        subset: Name of the configuration of a Hub data set that has several.
        class_names: Label as it stands in the data, to name to show; their order is that of the logits. None takes
            the labels themselves.
        val_share: Part of train that becomes ``val`` if there is none, in [0, 1); 0 goes without.
        test_share: Part of train that becomes ``test`` if there is none, in [0, 1); 0 goes without.
        max_examples: At most so many examples of each split, drawn by ``seed`` with all classes, if there is room for
            one of each; None takes all.
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.
    """

    def __init__(
        self,
        path: str | Path,
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
        found = {} if local is None else find_tables(local)
        return {
            "hub": None if local else str(self.path),
            "tables": {split: [file.name for file in files] for split, files in found.items()},
            "ignored": [] if local is None else [table.name for table in ignored_tables(local, found)],
            "columns": [self.text, self.label, self.query, self.evidence, self.split],
            "subset": self.subset,
            "class_names": None if self.class_names is None else list(self.class_names.items()),
            "shares": self.shares,
            "max_examples": self.max_examples,
            "seed": self.seed,
        }

    def files(self) -> list[Path]:
        """The tables of all splits; none for a Hub data set."""
        local = self._local()
        return [] if local is None else [file for files in find_tables(local).values() for file in files]

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The rows as they are, divided into splits."""
        splits = {split: self._examples(table) for split, table in self._tables().items()}
        notes = [f"Found {', '.join(splits)}."]  # not where: the notes are cached, and the data may be moved
        if ignored := self.settings()["ignored"]:
            notes.append(f"Ignored {', '.join(ignored)}: not named after one split (train, val or test).")
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
        path = Path(self.path).expanduser()
        if path.exists():
            return path
        name = str(self.path)
        if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((*KINDS, *COMPRESSED)):
            raise InputError(f"There is no file or folder {path}.")
        return None

    def _tables(self) -> dict[str, Table]:
        filled = [name for name in (self.text, self.label, self.query) if name is not None]
        columns = filled + [name for name in (self.evidence, self.split) if name is not None]
        local = self._local()
        if local is None:
            tables = read_hub(str(self.path), self.subset, columns)
        else:
            found = find_tables(local).items()
            with cache.scratch(cache.cache_root(self._cache_dir)) as scratch:
                tables = {split: read_tables(files, columns, filled, scratch, [self.label]) for split, files in found}
        if self.split is None:
            return tables
        divided: dict[str, Table] = {}
        for table in tables.values():
            for row, value in enumerate(table.columns[self.split]):
                split = split_of(str(value))
                if split is None:
                    place = f"{table.source}, {table.unit} {table.lines[row]}"
                    raise InputError(
                        f"{place}: the column {self.split!r} holds {value!r}, which names no split; it should be "
                        "train, val or test."
                    )
                into = divided.setdefault(split, Table({name: [] for name in columns}, table.source, [], table.unit))
                for name in columns:
                    into.columns[name].append(table.columns[name][row])
                into.lines.append(table.lines[row])
        return {split: divided[split] for split in ("train", "val", "test") if split in divided}

    def _examples(self, table: Table) -> Examples:
        found = Examples(texts=[], labels=[], source=table.source, lines=table.lines, unit=table.unit)
        for row in range(len(table.columns[self.text])):
            found.texts.append(self._text(table, self.text, row, found))
            found.labels.append(self._label(table.columns[self.label][row], found.place(row)))
        if self.query is not None:
            found.queries = [self._text(table, self.query, row, found) for row in range(len(found))]
        if self.evidence is not None:
            found.texts = [text.split() if isinstance(text, str) else text for text in found.texts]
            found.evidence = [
                _numbers(value, found.place(row)) for row, value in enumerate(table.columns[self.evidence])
            ]
        return found

    def _text(self, table: Table, column: str, row: int, examples: Examples) -> Text:
        value = table.columns[column][row]
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            return value
        raise InputError(f"{examples.place(row)}: the {column} should be a text or a list of words, not {value!r}.")

    def _label(self, value: Any, place: str) -> Label:
        values = value if isinstance(value, list) else [value]
        for position, single in enumerate(values):
            if isinstance(single, float) and single.is_integer():  # a column of whole numbers with a gap becomes float
                values = [*values[:position], int(single), *values[position + 1 :]]
            elif not isinstance(single, (str, int)):
                raise InputError(f"{place}: the {self.label} should be a class name or a whole number, not {single!r}.")
        label: Label = list(values) if isinstance(value, list) else values[0]
        if self.class_names is None:
            return label
        for name in names_of(label):
            if name not in self.class_names:
                known = ", ".join(repr(key) for key in self.class_names)
                raise InputError(f"{place}: unknown label {name!r}; class_names has {known}.")
        shown = [self.class_names[name] for name in names_of(label)]
        return shown if isinstance(value, list) else shown[0]

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
            if len(leave) == 0:
                raise InputError(
                    f"There is no {split} split, and {len(train)} training examples are too few to carve {share:g} "
                    f"from each class; give one, or set {split}_share to 0."
                )
            splits[split], splits["train"] = train.take(leave), train.take(stay)
            notes.append(
                f"No {split} split was found: {len(leave):,} of {whole:,} training examples, by seed {self.seed}."
            )


def _numbers(value: Any, place: str) -> Sequence[float]:
    try:
        pieces = value.split() if isinstance(value, str) else value
        return [float("nan") if piece is None else float(piece) for piece in pieces]
    except (TypeError, ValueError):
        raise InputError(f"{place}: evidence should be one number a word, not {value!r}.") from None
