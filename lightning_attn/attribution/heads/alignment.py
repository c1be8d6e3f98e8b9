"""Parsed sentences as a tokenizer splits them: which word each token comes from, and which words depend on which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from lightning_attn.data.conllu import Parse
from lightning_attn.data.encoded import Array, EncodedDataset, offsets_of
from lightning_attn.data.hf_processor import token_ids
from lightning_attn.errors import InputError
from lightning_attn.types import Batch

_SPACE = ord(" ")


@dataclass
class AlignedBatch:
    """B sentences with A dependencies between their words.

    Attributes:
        batch: The tokens; targets mean nothing.
        words: Number in its sentence of the word that each token comes from, -1 for none, shape ``(B, L)``.
        row: Sentence of each dependency, shape ``(A,)``.
        relation: Number of its relation, shape ``(A,)``.
        dependent: Number in the sentence of the word that depends, shape ``(A,)``.
        head: Number of the word that it depends on, shape ``(A,)``.
    """

    batch: Batch
    words: Tensor
    row: Tensor
    relation: Tensor
    dependent: Tensor
    head: Tensor


@dataclass
class AlignedTexts:
    """N sentences with their dependencies.

    Attributes:
        texts: The tokens.
        words: See :class:`AlignedBatch`; flat, shape ``(T,)``.
        arcs: A row a dependency of the relations that were asked for: sentence (ascending), relation, dependent and
            head, shape ``(A, 4)``, int64.
        relations: Names of these relations.
        repeated: Sentences left out because they were there already.
        too_long: Sentences left out because the model cannot read them whole.
        unaligned: Dependencies left out because one of the words has no token of its own.
    """

    texts: EncodedDataset
    words: Array
    arcs: Array
    relations: tuple[str, ...]
    repeated: int
    too_long: int
    unaligned: int

    def __len__(self) -> int:
        """Number of sentences N."""
        return len(self.texts)

    def batch(self, rows: Array) -> AlignedBatch:
        """The sentences at ``rows``, different ones, padded to the longest of them."""
        batch = self.texts[rows.tolist()]
        words = torch.full(batch.valid.shape, -1)
        bounds = self.texts.offsets
        flat = np.concatenate([self.words[bounds[row] : bounds[row + 1]] for row in rows])
        words[batch.valid] = torch.from_numpy(flat)
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        arcs = self.arcs[place[self.arcs[:, 0]] >= 0]
        row = torch.from_numpy(place[arcs[:, 0]])
        relation, dependent, head = torch.from_numpy(arcs[:, 1:]).unbind(dim=1)
        return AlignedBatch(batch, words, row, relation, dependent, head)


def align(
    parses: Sequence[Parse], tokenizer: Tokenizer, relations: Sequence[str], max_length: int, pad_id: int = 0
) -> AlignedTexts:
    """Find the tokens of each word by characters.

    A token belongs to the word in which it begins, a space before it left out. A word in which no token begins (the
    tokenizer joins it with the one before) has no place where it could be attended to.

    Args:
        parses: Sentences; of several that read the same, the first counts.
        tokenizer: Gives offsets, special tokens included; neither pads nor cuts.
        relations: Names, compared whole: ``nsubj`` does not stand for ``nsubj:pass``.
        max_length: Most tokens that the model can read.
        pad_id: Fills padding.

    Raises:
        InputError: No sentence is left.
    """
    first: dict[str, Parse] = {}
    for parse in parses:
        first.setdefault(parse.text, parse)
    distinct = list(first.values())
    encodings = tokenizer.encode_batch([parse.text for parse in distinct], add_special_tokens=True)
    kept = [pair for pair in zip(distinct, encodings, strict=True) if len(pair[1].ids) <= max_length]
    too_long = len(distinct) - len(kept)
    if not kept:
        raise InputError(f"All {too_long:,} sentences have more than {max_length} tokens, which the model cannot read.")
    words = _words_of_tokens([parse for parse, _ in kept], [encoding for _, encoding in kept])
    lengths = [len(encoding.ids) for _, encoding in kept]
    texts = EncodedDataset(
        ids=token_ids(tokenizer, [encoding for _, encoding in kept]),
        offsets=offsets_of(lengths),
        special=np.concatenate([np.asarray(encoding.special_tokens_mask, dtype=bool) for _, encoding in kept]),
        labels=np.zeros(len(kept), dtype=np.int64),
        pad_id=pad_id,
    )
    number = {name: place for place, name in enumerate(relations)}
    rows = [
        (row, number[relation], dependent, head)
        for row, (parse, _) in enumerate(kept)
        for dependent, (relation, head) in enumerate(zip(parse.relations, parse.heads, strict=True))
        if relation in number and head >= 0
    ]
    arcs = np.array(rows, dtype=np.int64).reshape(-1, 4)
    # A word is a number of its own here, whatever its sentence.
    most = max(len(parse.spans) for parse, _ in kept)
    present = np.repeat(np.arange(len(kept)), lengths) * most + words
    placed = np.isin(arcs[:, 0] * most + arcs[:, 2], present[words >= 0])
    placed &= np.isin(arcs[:, 0] * most + arcs[:, 3], present[words >= 0])
    return AlignedTexts(
        texts, words, arcs[placed], tuple(relations), len(parses) - len(distinct), too_long, int((~placed).sum())
    )


def _words_of_tokens(parses: Sequence[Parse], encodings: Sequence[Encoding]) -> Array:
    """The word of each token of all sentences, -1 for none, shape ``(T,)``; they are laid out flat and read once."""
    letters = np.frombuffer("".join(parse.text + " " for parse in parses).encode("utf-32-le"), dtype=np.uint32)
    starts = offsets_of(len(parse.text) + 1 for parse in parses)[:-1]
    word_of_letter = np.full(len(letters), -1, dtype=np.int64)
    for start, parse in zip(starts.tolist(), parses, strict=True):
        for word, span in enumerate(parse.spans):
            if span is not None:
                word_of_letter[start + span[0] : start + span[1]] = word
    offsets = [np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings]
    spans = np.concatenate([part + start for part, start in zip(offsets, starts, strict=True)])
    first = spans[:, 0] + (letters[np.minimum(spans[:, 0], len(letters) - 1)] == _SPACE)
    special = np.concatenate([np.asarray(encoding.special_tokens_mask, dtype=bool) for encoding in encodings])
    inside = (first < spans[:, 1]) & ~special
    return np.where(inside, word_of_letter[np.minimum(first, len(letters) - 1)], -1)
