"""The Stanford Sentiment Treebank: `SSTDataModule`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import existing, read_lines
from lightning_attn.errors import InputError

FILES = {"train": "train.txt", "val": "dev.txt", "test": "test.txt"}
NEUTRAL = 2
ESCAPES = {"-LRB-": "(", "-RRB-": ")", "\\/": "/", "\\*": "*", "``": '"', "''": '"'}
_ESCAPED = re.compile("|".join(re.escape(code) for code in ESCAPES))
_PIECE = re.compile(r"[()]|[^() ]+")  # the ordinary space alone separates: a few words hold a no-break space


def parse_tree(line: str) -> tuple[int, list[str], list[int]]:
    """Label of the sentence, its words, and the label of each word, from a tree such as ``(3 (2 A) (4 joy))``.

    Raises:
        ValueError: The brackets, labels and words do not make one tree.
    """
    words: list[str] = []
    labels: list[int] = []
    stack: list[tuple[int, list[str]]] = []  # of each open node the label, and what it holds so far
    root: int | None = None
    pieces = iter(_PIECE.findall(line))
    for piece in pieces:
        if root is not None:
            raise ValueError("text after the tree")
        if piece == "(":
            label = next(pieces, "")
            if label not in ("0", "1", "2", "3", "4"):
                raise ValueError(f"label {label!r}")
            if stack:
                stack[-1][1].append("(")
            stack.append((int(label), []))
        elif not stack:
            raise ValueError(f"{piece!r} outside the tree")
        elif piece == ")":
            value, held = stack.pop()
            if held == [] or (len(held) > 1 and set(held) != {"("}):
                raise ValueError("a node holds one word or other nodes")
            if held != ["("] * len(held):
                words.append(held[0])
                labels.append(value)
            root = None if stack else value
        else:
            stack[-1][1].append(piece)
    if root is None:
        raise ValueError("brackets do not close")
    return root, words, labels


def unescape(word: str) -> str:
    """A word of the Penn treebank as people write it: ``-LRB-`` is a bracket, a slash loses its backslash."""
    return _ESCAPED.sub(lambda match: ESCAPES[match.group()], word)


class SSTDataModule(CorpusDataModule):
    """Film review sentences with a sentiment for every word.

    Reads ``train.txt``, ``dev.txt`` and ``test.txt`` with one bracketed tree per line; words are taken as the trees
    give them. With two classes the neutral sentences are left out, as Jain and Wallace (NAACL 2019) do.

    Source: Socher et al., EMNLP 2013, https://aclanthology.org/D13-1170

    Args:
        path: Folder of the three files.
        classes: ``binary`` (negative, positive), or ``five``.
        evidence: ``binary``: 1 for a word whose own label is not neutral, else 0; ``graded``: 0, 0.5 or 1 by how far
            its label is from neutral.
        min_length: Leave out sentences of fewer words, punctuation not counted; 6 is the filter of Jain and Wallace
            (2019), who also leave out the longest sentence of each split.
        punctuation: False leaves punctuation out, and it separates words, as in Jain and Wallace (2019): ``well-made``
            is two words then. A sentence of punctuation alone is left out.
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Literal["binary", "five"] = "binary",
        evidence: Literal["binary", "graded"] = "binary",
        min_length: int = 1,
        punctuation: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.kind = classes
        self.evidence = evidence
        self.min_length = min_length
        self.punctuation = punctuation

    def classes(self) -> list[str]:
        """Class names in the order of the logits."""
        if self.kind == "binary":
            return ["negative", "positive"]
        return ["very negative", "negative", "neutral", "positive", "very positive"]

    def settings(self) -> dict[str, Any]:
        """Which sentences and words, and what counts as evidence."""
        return {
            "classes": self.kind,
            "evidence": self.evidence,
            "min_length": self.min_length,
            "punctuation": self.punctuation,
        }

    def files(self) -> list[Path]:
        """Those of the three files that are there."""
        folder = existing(self.path, "folder of SST trees")
        files = [folder / name for name in FILES.values() if (folder / name).is_file()]
        if not files:
            raise InputError(f"{folder} has none of {', '.join(FILES.values())}, the files of the SST trees.")
        return files

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The sentences of each file."""
        names = {name: split for split, name in FILES.items()}
        return {names[path.name]: self._read_file(path) for path in self.files()}, []

    def _read_file(self, path: Path) -> Examples:
        examples = Examples(texts=[], labels=[], source=str(path), evidence=[], lines=[])
        assert examples.evidence is not None
        assert examples.lines is not None
        for number, line in read_lines(path):
            try:
                root, words, labels = parse_tree(line)
            except ValueError as problem:
                raise InputError(
                    f"{path}, line {number}, is not a tree ({problem}); it should look like (3 (2 A) (4 joy))."
                ) from None
            if self.kind == "binary" and root == NEUTRAL:
                continue
            text = [unescape(word) for word in words]
            parts = [re.findall(r"\w+", word) for word in text]
            if sum(map(len, parts)) < (self.min_length if self.punctuation else max(1, self.min_length)):
                continue
            if not self.punctuation:
                text = [part for pieces in parts for part in pieces]
                labels = [label for label, pieces in zip(labels, parts, strict=True) for _ in pieces]
            examples.texts.append(text)
            examples.labels.append(self.classes()[int(root > NEUTRAL) if self.kind == "binary" else root])
            steps = [abs(label - NEUTRAL) / 2 for label in labels]
            examples.evidence.append(steps if self.evidence == "graded" else [float(step > 0) for step in steps])
            examples.lines.append(number)
        return examples
