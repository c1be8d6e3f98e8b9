"""Pretrained word vectors from GloVe and fastText text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_attn.data.encoded import Array
from lightning_attn.data.files import read_byte_lines
from lightning_attn.data.processor import TextProcessor
from lightning_attn.data.word_processor import SPECIAL, WordProcessor
from lightning_attn.errors import InputError


def read_word_vectors(path: Path, processor: TextProcessor) -> tuple[Array, str]:
    """Vectors of the vocabulary, shape ``(V, E)``, float32, NaN rows where there is none; and a note on how many.

    Only the rows of words in the vocabulary are parsed and kept, so a file of gigabytes needs little memory. A first
    line of two whole numbers is a fastText header.

    Raises:
        InputError: A line is malformed or not finite, or the processor has no words.
    """
    if not isinstance(processor, WordProcessor):
        raise InputError(f"Word vectors are for whole words: use WordProcessor, not {type(processor).__name__}.")
    rows = {word.encode(): row for row, word in enumerate(processor.vocabulary)}
    vectors: Array | None = None
    for number, line in read_byte_lines(path):
        pieces = line.split()
        if number == 1 and len(pieces) == 2 and all(piece.isdigit() for piece in pieces):
            continue
        if vectors is None:
            vectors = np.full((len(rows), max(len(pieces) - 1, 0)), np.nan, dtype=np.float32)
        if len(pieces) - 1 > vectors.shape[1]:
            continue  # a "word" with white space in it, as in glove.840B: none of ours
        if len(pieces) - 1 < max(vectors.shape[1], 1):
            raise InputError(
                f"{path}, line {number}, has {max(len(pieces) - 1, 0)} numbers after its word, but the lines "
                f"before it have {vectors.shape[1]}."
            )
        if (row := rows.get(pieces[0])) is not None:
            try:
                with np.errstate(over="ignore"):
                    vectors[row] = np.array([float(piece) for piece in pieces[1:]])
            except ValueError:
                raise InputError(f"{path}, line {number}, should be a word and numbers only.") from None
            if not np.isfinite(vectors[row]).all():
                raise InputError(f"{path}, line {number}, holds a number that is infinite, NaN or beyond float32.")
    if vectors is None:
        raise InputError(f"{path} is empty: it should hold a word and its vector per line.")
    covered = int((~np.isnan(vectors).any(axis=1)).sum())
    return vectors, f"Word vectors: {covered:,} of {len(rows) - len(SPECIAL):,} words are in {path.name}."
