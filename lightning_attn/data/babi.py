"""Questions over a list of facts, in the text format of the bAbI tasks: `BabiDataModule`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.encoded import Array
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import COMPRESSED, existing, read_lines
from lightning_attn.data.labels import Label, stratified
from lightning_attn.data.processor import TextProcessor
from lightning_attn.data.word_processor import WordProcessor
from lightning_attn.errors import InputError

TASKS = (1, 2, 3)  # those whose answer is one word and whose facts are all before the question


@dataclass
class _Story:
    """What was read of a story so far: its lines as they stand, and the words of its facts by line number."""

    said: list[str] = field(default_factory=list)
    facts: dict[int, list[str]] = field(default_factory=dict)


class BabiDataModule(CorpusDataModule):
    """One-word answers to questions over a list of facts, of which one, two or three decide (tasks 1 to 3).

    The text is all facts of the story before the question, in their order in the file; other questions are not part of
    it. The query is the question, the classes are the answers of the training questions, and the evidence is 1 on the
    words of the supporting facts and 0 on all others, so it is known exactly. Validation questions are carved from the
    training file by whole stories, and equal stories stay on one side, because the questions of a story share facts.

    Source: Weston et al., ICLR 2016, https://arxiv.org/abs/1502.05698; 15 % of train for validation as in Jain and
    Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186.

    Args:
        path: Folder with ``qaN_..._train.txt`` and ``qaN_..._test.txt`` (``.gz`` and ``.xz`` too).
        task: N: 1, 2 or 3.
        val_share: Part of the training stories that becomes ``val``, in [0, 1); 0 goes without.
        processor: Tokenises; None means ``WordProcessor(max_length=2048)``, which cuts no story of the three tasks.
        batch_size: Examples per training batch, on each process.
        **kwargs: Those of `CorpusDataModule`, such as ``word_vectors``, ``seed``.
    """

    def __init__(
        self,
        path: str | Path,
        task: int = 1,
        val_share: float = 0.15,
        processor: TextProcessor | None = None,
        batch_size: int = 50,
        **kwargs: Any,
    ) -> None:
        # the default max_length would cut the end of long stories, where the deciding facts stand
        super().__init__(processor or WordProcessor(max_length=2048), batch_size=batch_size, **kwargs)
        if task not in TASKS:
            raise InputError(f"BabiDataModule reads the tasks 1, 2 and 3, not {task}.")
        if not 0 <= val_share < 1:
            raise InputError(f"val_share must be 0 or more and below 1, not {val_share}.")
        self.path = path
        self.task = task
        self.val_share = val_share

    def settings(self) -> dict[str, Any]:
        """What decides how the stories are divided."""
        return {"val_share": self.val_share, "seed": self.seed}

    def files(self) -> list[Path]:
        """The training and the test file of the task."""
        return [self._file("train"), self._file("test")]

    def _file(self, split: str) -> Path:
        folder = existing(self.path, "folder with the bAbI tasks")
        endings = tuple(f"_{split}.txt{packed}" for packed in ("", *COMPRESSED))
        files = [file for file in sorted(folder.glob(f"qa{self.task}_*")) if file.name.endswith(endings)]
        if len(files) != 1:
            raise InputError(
                f"{folder} should hold one file qa{self.task}_*_{split}.txt, but there are "
                f"{', '.join(file.name for file in files) or 'none'}."
            )
        return files[0]

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The questions of both files, some training stories set apart."""
        train, test = self.files()
        examples, stories = read_questions(train)
        splits = {"train": examples}
        notes = [f"bAbI task {self.task}, {len(set(stories)):,} training stories."]
        if self.val_share > 0:
            stay, leave = _carve(examples.labels, stories, self.val_share, self.seed)
            if len(leave) == 0:
                raise InputError(
                    f"{train} has {len(set(stories))} stories, too few to carve {self.val_share:g} for validation; set "
                    "val_share to 0."
                )
            splits = {"train": examples.take(stay), "val": examples.take(leave)}
            carved = len({stories[row] for row in leave.tolist()})
            notes.append(f"val: {carved:,} of the training stories, by seed {self.seed}.")
        splits["test"] = read_questions(test)[0]
        return splits, notes


def _carve(labels: Sequence[Label], stories: Sequence[str], share: float, seed: int) -> tuple[Array, Array]:
    """Questions that stay and questions that leave, by whole stories; a story that has an answer alone stays."""
    one = [""] * len(stories)  # a story has several answers, so they are not strata
    stay, leave = stratified(one, stories, share, seed)
    answers = {labels[row] for row in stay.tolist()}
    needed = {stories[row] for row in leave.tolist() if labels[row] not in answers}
    back = np.array([stories[row] in needed for row in leave.tolist()], dtype=bool)
    return np.sort(np.concatenate([stay, leave[back]])), leave[~back]


def read_questions(path: Path) -> tuple[Examples, list[str]]:
    """The questions of a file, and of each the story it belongs to: the story's lines as one string.

    Raises:
        InputError: A line number does not follow the one before, or a question lacks an answer or supporting facts.
    """
    examples = Examples(texts=[], labels=[], source=str(path), evidence=[], queries=[], lines=[])
    assert examples.evidence is not None
    assert examples.queries is not None
    assert examples.lines is not None
    owners: list[_Story] = []
    for line, number, story, text in _numbered(path):
        place = f"{path}, line {line}"
        story.said.append(text)
        question, *columns = text.split("\t")
        if not columns and "?" not in text:
            story.facts[number] = _words(text)
            continue
        if len(columns) != 2 or not question.strip() or not columns[0].strip():
            raise InputError(
                f"{place}: a question should be followed by its answer and the numbers of the supporting facts, "
                f"separated by tabs, not {text!r}."
            )
        support = _support(columns[1], story, place)
        examples.texts.append([word for words in story.facts.values() for word in words])
        examples.evidence.append([float(fact in support) for fact, words in story.facts.items() for _ in words])
        examples.queries.append(_words(question))
        examples.labels.append(columns[0].strip())
        examples.lines.append(line)
        owners.append(story)
    if not owners:
        raise InputError(f"{path} holds no question: a line with an answer behind a tab.")
    return examples, ["\n".join(story.said) for story in owners]


def _numbered(path: Path) -> Iterator[tuple[int, int, _Story, str]]:
    """Of each line its place in the file, its number, its story and what it says."""
    story, last = _Story(), 0
    for line, content in read_lines(path):
        if not content.strip():
            continue
        written, _, text = content.partition(" ")
        number = int(written) if written.isdecimal() else 0
        if number not in (1, last + 1) or not text.strip():
            follows = f"{last + 1}, or 1 for a new story," if last else "1"
            raise InputError(
                f"{path}, line {line}, should begin with the number {follows} and a space, but it is {content[:40]!r}."
            )
        if number == 1:
            story = _Story()
        last = number
        yield line, number, story, text


def _support(column: str, story: _Story, place: str) -> set[int]:
    numbers = column.split()
    for written in numbers or [""]:
        if not written.isdecimal() or int(written) not in story.facts:
            facts = ", ".join(str(fact) for fact in story.facts) or "none"
            raise InputError(
                f"{place}: the supporting line {written!r} is not among the facts before the question ({facts})."
            )
    return {int(written) for written in numbers}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)
