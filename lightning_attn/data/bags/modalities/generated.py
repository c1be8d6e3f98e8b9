"""Instances that are made up: `GaussianClusters`, `ExpressionCounts`, `MotifSequences`."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import logsumexp
from scipy.stats import nbinom

from lightning_attn.data.bags.modalities.base import GeneratedModality, draw_owned, positive, stream
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError

BASES = 4


class GaussianClusters(GeneratedModality):
    """Each kind is a normal distribution with unit variance around a centre of its own.

    The centres are normal numbers, drawn by the seed once for all splits and tasks.

    Args:
        clusters: Number of kinds, at least 2.
        dim: Number of features.
        distance: Of two centres, in standard deviations of a cluster; the root mean square over draws.

    Raises:
        InputError: A number is not above 0.
    """

    def __init__(self, clusters: int = 6, dim: int = 8, distance: float = 6.0) -> None:
        positive(self, clusters=clusters, dim=dim, distance=distance)
        self.clusters = clusters
        self.dim = dim
        self.distance = distance

    @property
    def num_kinds(self) -> int:
        """As many as clusters."""
        return self.clusters

    def centres(self, seed: int) -> Array:
        """Shape ``(clusters, dim)``."""
        spread = self.distance / np.sqrt(2 * self.dim)
        return stream(seed, "centres").normal(0.0, spread, size=(self.clusters, self.dim))

    def draw(self, kinds: Array, split: str, seed: int) -> Array:
        """Centre plus noise."""
        noise = stream(seed, "instances", split).normal(size=(len(kinds), self.dim))
        return self.centres(seed)[kinds] + noise

    def log_likelihood(self, features: Array, seed: int) -> Array:
        """Minus half the squared distance to each centre."""
        difference = features[:, None, :].astype(np.float64) - self.centres(seed)
        return -0.5 * np.einsum("nkd,nkd->nk", difference, difference)  # type: ignore[no-any-return]


class ExpressionCounts(GeneratedModality):
    """Each kind is a type of cell: the counts of its genes are negative binomial, and some genes mark it.

    All types share the genes' mean counts, which are log-normal; a type has its marker genes ``fold`` times as high.
    The features are ``log(1 + count)``.

    Args:
        types: Number of kinds, at least 2.
        genes: Number of features.
        markers: Genes that mark a type, at most ``genes``.
        fold: How many times as high a marker's mean is, above 0.
        mean: Median of the genes' mean counts, above 0.
        dispersion: Variance is mean + dispersion * mean squared; above 0.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        types: int = 6,
        genes: int = 40,
        markers: int = 5,
        fold: float = 6.0,
        mean: float = 3.0,
        dispersion: float = 0.5,
    ) -> None:
        positive(self, types=types, genes=genes, markers=markers, fold=fold, mean=mean, dispersion=dispersion)
        if markers > genes:
            raise InputError(f"ExpressionCounts needs at most as many markers as genes, not {markers} of {genes}.")
        self.types = types
        self.genes = genes
        self.markers = markers
        self.fold = fold
        self.mean = mean
        self.dispersion = dispersion

    @property
    def num_kinds(self) -> int:
        """As many as types."""
        return self.types

    def means(self, seed: int) -> Array:
        """Mean count of each gene in each type, shape ``(types, genes)``."""
        generator = stream(seed, "genes")
        means = np.tile(self.mean * np.exp(0.5 * generator.normal(size=self.genes)), (self.types, 1))
        for kind in range(self.types):
            means[kind, generator.choice(self.genes, self.markers, replace=False)] *= self.fold
        return means

    def draw(self, kinds: Array, split: str, seed: int) -> Array:
        """Log counts; a cell that another split owns is drawn again."""
        generator = stream(seed, "instances", split)
        means = self.means(seed)
        size = 1 / self.dispersion

        def counts(kinds: Array) -> Array:
            return generator.negative_binomial(size, size / (size + means[kinds]))

        return np.log1p(draw_owned(kinds, split, counts))

    def log_likelihood(self, features: Array, seed: int) -> Array:
        """Sum over genes of the negative binomial log probability."""
        counts = np.rint(np.expm1(features.astype(np.float64)))
        means = self.means(seed)
        size = 1 / self.dispersion
        return np.stack([nbinom.logpmf(counts, size, size / (size + row)).sum(axis=1) for row in means], axis=1)


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
        words: dict[tuple[int, ...], None] = {}
        while len(words) < self.motifs:
            words[tuple(generator.integers(BASES, size=self.motif_length).tolist())] = None
        return np.array(list(words))

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
