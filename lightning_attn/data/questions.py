"""Questions with the text that answers them, in the format of SQuAD: `Question`, `read_questions`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_attn.data.files import parse_json
from lightning_attn.errors import InputError


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        key: Its id in the file.
        text: The question.
        context: The text that it is asked of.
        answers: Place of each answer in ``context``, first character and one after the last; none if there is none.
        group: Number of the article, whose questions belong on one side of a split.
        source: File, for messages.
    """

    key: str
    text: str
    context: str
    answers: tuple[tuple[int, int], ...]
    group: int
    source: str

    @property
    def texts(self) -> list[str]:
        """What is right, in words; the empty string if there is no answer."""
        return [self.context[first:end] for first, end in self.answers] or [""]

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.source}, question {self.key}"


def read_questions(path: Path) -> list[Question]:
    """The questions of a JSON file of SQuAD 1.1 or 2.0, or of XQuAD.

    Source: Rajpurkar et al., EMNLP 2016, https://aclanthology.org/D16-1264

    Raises:
        InputError: It is not such a file, or an answer does not stand where the file says.
    """
    try:
        content = parse_json(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        questions = list(_questions(content, str(path)))
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path} is not in the format of SQuAD ({reason}): data > paragraphs > context and qas > id, question and "
            "answers, with text and answer_start each."
        ) from error
    if not questions:
        raise InputError(f"{path} holds no question.")
    keys: set[str] = set()
    for question in questions:
        if question.key in keys:
            raise InputError(f"{question.place}: the id stands there twice; every question needs its own.")
        keys.add(question.key)
    return questions


def _questions(content: Any, source: str) -> Iterator[Question]:
    for group, article in enumerate(content["data"]):
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for asked in paragraph["qas"]:
                key, text = str(asked["id"]), asked["question"]
                place = f"{source}, question {key}"
                if not text.strip() or not context.strip():
                    raise InputError(f"{place}: the question or its context is empty.")
                answers = [_answer(answer, context, place) for answer in asked["answers"]]
                yield Question(key, text, context, tuple(answers), group, source)


def _answer(answer: Any, context: str, place: str) -> tuple[int, int]:
    text, first = answer["text"], answer["answer_start"]
    if not text.strip():
        raise InputError(f"{place}: an answer is empty; a question without an answer has an empty list of answers.")
    end = first + len(text)
    if first < 0 or context[first:end] != text:
        raise InputError(
            f"{place}: the answer {text!r} does not stand at answer_start {first} of its context, where it says "
            f"{context[max(0, first) : max(0, end)]!r}."
        )
    return first, end
