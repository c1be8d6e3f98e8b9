"""The layout of the ERASER benchmark: `ERASERDataModule`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import existing, parse_json, read_lines
from lightning_attn.errors import InputError, shown

FILES = {"train": "train.jsonl", "val": "val.jsonl", "test": "test.jsonl"}


class ERASERDataModule(CorpusDataModule):
    """Documents with spans that people marked as the reason for the label.

    Reads ``train.jsonl``, ``val.jsonl``, ``test.jsonl`` (``annotation_id``, ``classification``, ``evidences``, and
    ``query``) and ``docs/``, whose words are separated by white space and taken as they are. The evidence is 1 inside
    a span, 0 outside, and NaN throughout where an example has no span: nobody has marked it. In most ERASER sets the
    spans of train and val do not cover all there is, so a 0 there is no proof of irrelevance.

    Source: DeYoung et al., ACL 2020, https://aclanthology.org/2020.acl-main.408

    Args:
        path: Folder with the three files and ``docs/``.
        query: Whether to give the network the query; of no use where it is the same for all, as with movies.
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.
    """

    def __init__(
        self,
        path: str | Path,
        query: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.query = query

    def settings(self) -> dict[str, Any]:
        """Whether queries are read."""
        return {"query": self.query}

    def files(self) -> list[Path]:
        """Those of the three files that are there, and all documents."""
        return [
            *self._tables().values(),
            *sorted(path for path in self._documents().iterdir() if path.is_file() and path.name[0] != "."),
        ]

    def _tables(self) -> dict[str, Path]:
        folder = existing(self.path, "folder in the layout of ERASER")
        tables = {split: folder / name for split, name in FILES.items() if (folder / name).is_file()}
        if not tables:
            raise InputError(f"{folder} has none of {', '.join(FILES.values())}, the files of the ERASER layout.")
        return tables

    def _documents(self) -> Path:
        documents = Path(self.path).expanduser() / "docs"
        if not documents.is_dir():
            raise InputError(f"There is no folder {documents}, which should hold one file per document.")
        return documents

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The documents of each file, and their spans."""
        return {split: self._read_file(path) for split, path in self._tables().items()}, []

    def _read_file(self, path: Path) -> Examples:
        examples = Examples([], [], str(path), evidence=[], queries=[] if self.query else None, lines=[])
        assert examples.evidence is not None
        assert examples.lines is not None
        for number, line in read_lines(path):
            place = f"{path}, line {number}"
            try:
                row = parse_json(line, path, number)
                spans = [span for group in row["evidences"] for span in group]
                label = row["classification"]
                names = {span["docid"] for span in spans} or set(row.get("docids") or [row["annotation_id"]])
                ranges = [(int(span["start_token"]), int(span["end_token"])) for span in spans]
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"{place}, is no annotation of the ERASER layout ({type(error).__name__}: {error}); it needs "
                    "annotation_id, classification and evidences, with docid, start_token and end_token in each span."
                ) from None
            if not isinstance(label, (str, int)):
                raise InputError(f"{place}: the classification should be a class name, not {shown(str(label))}.")
            if len(names) != 1:
                raise InputError(f"{place}, takes {len(names)} documents; only examples with one are supported.")
            words = self._words(names.pop(), place)
            examples.texts.append(words)
            examples.labels.append(label)
            examples.evidence.append(_mark(len(words), ranges, place))
            examples.lines.append(number)
            if examples.queries is not None:
                examples.queries.append(str(row.get("query") or "").split())
        return examples

    def _words(self, name: str, place: str) -> list[str]:
        folder = self._documents()
        path = folder / str(name)
        if "\0" in str(path) or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise InputError(f"{place}, names the document {name!r}, but there is no file {path}.")
        return [word for _, line in read_lines(path) for word in line.split()]


def _mark(length: int, ranges: Sequence[tuple[int, int]], place: str) -> list[float]:
    if not ranges:
        return [float("nan")] * length
    evidence = [0.0] * length
    for start, end in ranges:
        if not 0 <= start < end <= length:
            raise InputError(
                f"{place}, has evidence from token {start} to {end}, but the document has {length} tokens."
            )
        evidence[start:end] = [1.0] * (end - start)
    return evidence
