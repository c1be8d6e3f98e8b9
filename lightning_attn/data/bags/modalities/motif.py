"""Sequences with a motif somewhere: `MotifSequences`."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import logsumexp

from lightning_attn.data.bags.modalities.base import GeneratedModality, draw_owned, positive
from lightning_attn.data.bags.streams import stream
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError

BASES = 4


class MotifSequences(GeneratedModality):
    """Random sequences of four letters; each kind has a motif, which stands at a random place of all its sequences.

    Background kinds have motifs too: what counts is which motif it is, not that there is one.

    Args:
        motifs: Number of kinds, at least 2.
        length: Letters of a sequence, at least ``motif_length``.
        motif_length: Letters of a motif.
        mutation: Probability that a letter of the motif is exchanged for another, in [0, 0.75].
        words: None gives the features one-hot, shape ``(length, 4)``. A number w gives how often each of the ``4**w``
            words of w letters occurs, shape ``(4**w,)``: what a network without convolutions can read.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        motifs: int = 5,
        length: int = 40,
        motif_length: int = 8,
        mutation: float = 0.0,
        words: int | None = None,
    ) -> None:
        positive(self, motifs=motifs, length=length, motif_length=motif_length)
        if motif_length > length:
            raise InputError(f"MotifSequences needs a motif_length of at most length, not {motif_length} of {length}.")
        if not 0 <= mutation <= 0.75:
            raise InputError(f"MotifSequences needs a mutation from 0 to 0.75, not {mutation:g}.")
        if words is not None and not 1 <= words <= min(6, length):
            raise InputError(f"MotifSequences needs words from 1 to 6, and at most length, not {words}.")
        self.motifs = motifs
        self.length = length
        self.motif_length = motif_length
        self.mutation = mutation
        self.words = words

    @property
    def num_kinds(self) -> int:
        """As many as motifs."""
        return self.motifs

    def motif(self, seed: int) -> Array:
        """The motifs, letters from 0 to 3, shape ``(motifs, motif_length)``; no two are the same.

        Raises:
            InputError: There are not so many words of this length.
        """
        if self.motifs > BASES**self.motif_length:
            raise InputError(f"There are no {self.motifs} different motifs of length {self.motif_length}.")
        generator = stream(seed, "motifs")
        found: dict[tuple[int, ...], None] = {}
        while len(found) < self.motifs:
            found[tuple(generator.integers(BASES, size=self.motif_length).tolist())] = None
        return np.array(list(found))

    def letters(self, kinds: Array, split: str, seed: int) -> Array:
        """Sequences, letters from 0 to 3, shape ``(N, length)``; one that another split owns is drawn again."""
        generator = stream(seed, "instances", split)
        motifs = self.motif(seed)

        def sequences(kinds: Array) -> Array:
            count = len(kinds)
            letters = generator.integers(BASES, size=(count, self.length))
            exchanged = generator.random((count, self.motif_length)) < self.mutation
            shift = np.where(exchanged, generator.integers(1, BASES, size=exchanged.shape), 0)
            start = generator.integers(self.length - self.motif_length + 1, size=count)
            places = start[:, None] + np.arange(self.motif_length)
            np.put_along_axis(letters, places, (motifs[kinds] + shift) % BASES, axis=1)
            return letters

        return draw_owned(kinds, split, sequences)

    def draw(self, kinds: Array, split: str, seed: int) -> Array:
        """One-hot letters, or numbers of words."""
        letters = self.letters(kinds, split, seed)
        if self.words is None:
            return np.eye(BASES)[letters]
        size = BASES**self.words
        word = sliding_window_view(letters, self.words, axis=1) @ BASES ** np.arange(self.words)[::-1]
        flat = (np.arange(len(letters))[:, None] * size + word).ravel()
        return np.bincount(flat, minlength=len(letters) * size).reshape(len(letters), size)

    def log_likelihood(self, features: Array, seed: int) -> Array:
        """Mean over the places the motif may stand at, against random letters.

        Raises:
            InputError: The features are numbers of words, which do not say where a word stands.
        """
        if self.words is not None:
            raise InputError("MotifSequences has a likelihood for one-hot features only: set words to null.")
        windows: Array = sliding_window_view(features.argmax(axis=-1), self.motif_length, axis=1)
        same, other = np.log((1 - self.mutation) * BASES), np.log(max(self.mutation / 3, 1e-300) * BASES)
        scores = [np.asarray(np.where(windows == motif, same, other)).sum(axis=-1) for motif in self.motif(seed)]
        return np.stack([logsumexp(score, axis=1) for score in scores], axis=1)
