"""Parsed sentences from CoNLL-U files, with the characters that each word stands in: `read_conllu`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_attn.errors import InputError, shown

_COLUMNS = 10
Line = tuple[int, str]  # its number in the file, from 1, and its content


@dataclass
class Parse:
    """A sentence of W words and its dependency tree.

    Attributes:
        text: As it was written: forms with a space between them, but for ``SpaceAfter=No``.
        spans: First character of each word and the one after its last, W pairs; None for a word that has none of its
            own, because it is part of a multiword token whose letters are not those of its words ("du": "de", "le").
        heads: Number of the word that each word depends on, from 0; -1 for the root.
        relations: Name of that dependency, such as ``nsubj`` or ``nsubj:pass``.
    """

    text: str
    spans: list[tuple[int, int] | None]
    heads: list[int]
    relations: list[str]


def read_conllu(path: str | Path) -> list[Parse]:
    """The sentences of a file (https://universaldependencies.org/format.html), in its order; empty nodes are left out.

    Args:
        path: A CoNLL-U file, UTF-8.

    Raises:
        InputError: The package conllu is missing, the file is not UTF-8, a line is broken, or there is no sentence.
    """
    try:
        import conllu  # an extra: nothing else needs it
    except ImportError:
        raise InputError(f"Reading {path} needs the package conllu: pip install conllu.") from None
    try:
        parses = [_parse(conllu, path, lines) for lines in _sentences(Path(path).expanduser())]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start} cannot be read.") from error
    if not parses:
        raise InputError(f"{path} holds no sentence: CoNLL-U has one word per line and an empty line after a sentence.")
    return parses


def _sentences(path: Path) -> Iterator[list[Line]]:
    """The lines of each sentence, comments left out."""
    lines: list[Line] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                if lines:
                    yield lines
                lines = []
            elif not line.startswith("#"):
                lines.append((number, line.rstrip("\n")))
    if lines:
        yield lines


def _parse(conllu: Any, path: str | Path, lines: list[Line]) -> Parse:
    try:
        tokens = conllu.parse_token_and_metadata("\n".join(line for _, line in lines))
    except conllu.exceptions.ParseException:
        tokens = [_token(conllu, path, line) for line in lines]  # one of them raises
    words = [token for token in tokens if isinstance(token["id"], int)]
    expected = 0
    for token, (number, line) in zip(tokens, lines, strict=True):
        place = f"Line {number} of {path}"
        if len(token) != _COLUMNS:
            raise InputError(f"{place} has {len(token)} columns where CoNLL-U has {_COLUMNS}: {shown(line)}.")
        if isinstance(token["id"], tuple):
            if token["id"][1] == "-" and not expected < token["id"][0] < token["id"][2] <= len(words):
                raise InputError(f"{place} joins words that do not follow it in the sentence: {shown(line)}.")
            continue
        expected += 1
        if token["id"] != expected:
            raise InputError(f"{place} should have the word number {expected} of its sentence: {shown(line)}.")
        if token["head"] is None or token["deprel"] == "_":
            raise InputError(f"{place} has no head or no relation, so the sentence is not parsed: {shown(line)}.")
        if not 0 <= token["head"] <= len(words) or token["head"] == expected:
            raise InputError(
                f"{place} depends on the word {token['head']}, which is no other of the sentence's {len(words)} words: "
                f"{shown(line)}."
            )
    text, spans = _text(tokens)
    return Parse(text, spans, [word["head"] - 1 for word in words], [str(word["deprel"]) for word in words])


def _token(conllu: Any, path: str | Path, line: Line) -> Any:
    try:
        return conllu.parse_token_and_metadata(line[1])[0]
    except conllu.exceptions.ParseException as error:
        reason = str(error).rstrip(".")
        raise InputError(f"Line {line[0]} of {path} is no line of CoNLL-U ({reason}): {shown(line[1])}.") from error


def _text(tokens: Any) -> tuple[str, list[tuple[int, int] | None]]:
    """The sentence as it was written, and the characters of each word."""
    text, spans = "", list[tuple[int, int] | None]()
    forms = {token["id"]: token["form"] for token in tokens if isinstance(token["id"], int)}
    joined = 0  # number of the last word of the multiword token that was read last
    for token in tokens:
        number = token["id"]
        if isinstance(number, tuple) and number[1] == ".":
            continue
        if isinstance(number, int) and number <= joined:
            continue
        start = len(text)
        if isinstance(number, tuple):
            joined = number[2]
            parts = [forms[part] for part in range(number[0], joined + 1)]
        else:
            parts = [token["form"]]
        own = "".join(parts) == token["form"]
        for part in parts:
            spans.append((start, start + len(part)) if own else None)
            start += len(part)
        text += token["form"] + ("" if (token["misc"] or {}).get("SpaceAfter") == "No" else " ")
    return text.rstrip(" "), spans
