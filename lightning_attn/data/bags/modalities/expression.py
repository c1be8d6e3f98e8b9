"""Counts as those of genes in cells: `ExpressionCounts`."""

from __future__ import annotations

import numpy as np
from scipy.stats import nbinom

from lightning_attn.data.bags.modalities.base import GeneratedModality, draw_owned, positive
from lightning_attn.data.bags.streams import stream
from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError


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
