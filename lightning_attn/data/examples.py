"""A split as it was read, `Examples`, and its way to flat arrays, `encode_split`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_attn.data.encoded import Array, Encoded, concatenate, offsets_of
from lightning_attn.data.labels import Label
from lightning_attn.data.processor import PairProcessor, Text, TextProcessor
from lightning_attn.data.progress import track
from lightning_attn.errors import InputError

CHUNK = 1000  # texts tokenised at a time: the tokenizer's own records take many times the room of the ids


@dataclass
class Examples:
    """N examples of a split, as they were read.

    Attributes:
        texts: Strings; or lists of words where somebody split them, which evidence needs.
        labels: Class names or numbers; lists of them where an example may belong to several classes.
        source: File or split, for messages.
        evidence: For each text one number in [0, 1] per word, NaN where unknown; None if the data have none.
        queries: Hypothesis or question of each text; None for single texts.
        lines: Line of each text in the file, from 1, for messages; None counts the rows.
        unit: What ``lines`` counts: ``line``, or ``row`` where the file has no lines.
        labelled: Whether the split has labels; where it has none, ``labels`` holds empty strings.
    """

    texts: list[Text]
    labels: list[Label]
    source: str
    evidence: list[Sequence[float]] | None = None
    queries: list[Text] | None = None
    lines: list[int] | None = None
    unit: str = "line"
    labelled: bool = True

    def __len__(self) -> int:
        """Number of examples N."""
        return len(self.texts)

    def place(self, row: int) -> str:
        """Where an example stands, for messages."""
        return (
            f"{self.source}, row {row + 1}" if self.lines is None else f"{self.source}, {self.unit} {self.lines[row]}"
        )

    def check_texts(self) -> None:
        """Refuse what no tokeniser takes, whichever reader it comes from.

        Raises:
            InputError: A text or query is neither a string nor a list of strings, or the column has both.
        """
        for what, texts in (("text", self.texts), ("query", self.queries or [])):
            split = bool(texts) and not isinstance(texts[0], str)
            for row, text in enumerate(texts):
                words = [text] if isinstance(text, str) else text
                if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
                    raise InputError(
                        f"{self.place(row)}: the {what} should be a text or a list of words, not {text!r}."
                    )
                if isinstance(text, str) is split:
                    kinds = ("a text", "a list of words")
                    raise InputError(
                        f"{self.place(row)}: the {what} is {kinds[not split]}, but that of {self.place(0)} is "
                        f"{kinds[split]}; all should be of one kind."
                    )

    def all_texts(self) -> list[Text]:
        """Texts and queries, for the vocabulary."""
        return [*self.texts, *(self.queries or [])]

    def take(self, rows: Array) -> Examples:
        """The examples at ``rows``."""
        numbers = rows.tolist()
        return Examples(
            texts=[self.texts[row] for row in numbers],
            labels=[self.labels[row] for row in numbers],
            source=self.source,
            evidence=None if self.evidence is None else [self.evidence[row] for row in numbers],
            queries=None if self.queries is None else [self.queries[row] for row in numbers],
            lines=None if self.lines is None else [self.lines[row] for row in numbers],
            unit=self.unit,
            labelled=self.labelled,
        )


def encode_split(examples: Examples, processor: TextProcessor) -> tuple[dict[str, Array], int]:
    """Flat arrays of a split (see `EncodedDataset`), and how many texts were cut at the maximum length.

    Raises:
        InputError: A text is empty, its evidence does not fit its words, or it has no query to be joined with.
    """
    if isinstance(processor, PairProcessor):
        encoded = _encode_pairs(examples, processor)
    else:
        encoded = _encode(examples, examples.texts, processor, "text")
    arrays = {"ids": encoded.ids, "offsets": encoded.offsets, "special": encoded.special}
    if encoded.segments is not None:
        arrays["segments"] = encoded.segments
    if examples.evidence is not None:
        arrays["evidence"] = _align(examples, examples.evidence, encoded)
    if examples.queries is not None and encoded.sides is None:
        queries = _encode(examples, examples.queries, processor, "query")
        arrays |= {"query_ids": queries.ids, "query_offsets": queries.offsets}
    return arrays, encoded.truncated


def _encode(examples: Examples, texts: list[Text], processor: TextProcessor, what: str) -> Encoded:
    if not texts:
        raise InputError(f"{examples.source} has no examples.")
    starts = track(range(0, len(texts), CHUNK), f"Tokenising {examples.source}", total=len(texts))
    encoded = concatenate([processor.encode(texts[start : start + CHUNK]) for start in starts])
    _refuse_empty(examples, ~encoded.special, encoded, what)
    return encoded


def _encode_pairs(examples: Examples, processor: PairProcessor) -> Encoded:
    if examples.queries is None:
        raise InputError(
            f"{examples.source} has no queries, and {type(processor).__name__} is for pairs: use HuggingFaceProcessor, "
            "or name their column (data.init_args.query)."
        )
    if not examples.texts:
        raise InputError(f"{examples.source} has no examples.")
    starts = track(range(0, len(examples), CHUNK), f"Tokenising {examples.source}", total=len(examples))
    encoded = concatenate(
        [
            processor.encode_pairs(examples.texts[start : start + CHUNK], examples.queries[start : start + CHUNK])
            for start in starts
        ]
    )
    assert encoded.sides is not None
    for side, what in enumerate(("text", "query")):
        _refuse_empty(examples, np.equal(encoded.sides, side), encoded, what)
    return encoded


def _refuse_empty(examples: Examples, own: Array, encoded: Encoded, what: str) -> None:
    counts = np.diff(offsets_of(own)[encoded.offsets])  # of each text the tokens that are its own
    if not counts.all():
        row = int(np.argmin(counts != 0))
        raise InputError(f"{examples.place(row)}: the {what} is empty; fill it in or remove the example.")


def _align(examples: Examples, evidence: list[Sequence[float]], encoded: Encoded) -> Array:
    for row, (text, values) in enumerate(zip(examples.texts, evidence, strict=True)):
        if len(text) != len(values):
            raise InputError(
                f"{examples.place(row)}: the text has {len(text)} words, but its evidence has {len(values)} numbers."
            )
    flat = np.concatenate([np.asarray(values, dtype=np.float32) for values in evidence])
    begin = offsets_of(len(values) for values in evidence)
    wrong = np.flatnonzero((flat < 0) | (flat > 1))
    if len(wrong):
        row = int(np.searchsorted(begin, wrong[0], side="right")) - 1
        raise InputError(f"{examples.place(row)}: evidence must lie between 0 and 1, but there is {flat[wrong[0]]:g}.")
    word = np.repeat(begin[:-1], np.diff(encoded.offsets)) + encoded.words
    return np.where(encoded.words < 0, np.float32(np.nan), flat[np.where(encoded.words < 0, 0, word)])
