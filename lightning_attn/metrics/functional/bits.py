"""Information in bits: what predictions gain over the label frequencies, and how certain that is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def bits_gained(log_probability: Array, target: NDArray[np.int64]) -> Array:
    """``(ln p(y) - ln P(y)) / ln 2``: what a prediction gains over the frequency of its label, example by example.

    Its mean is ``(H(Y) - NLL) / ln 2``, a lower bound on the information that the predictor's input holds about the
    label if the predictor was not fitted on these examples. Not clipped: a predictor may be worse than the frequencies.

    Args:
        log_probability: ``ln p`` of the label of each example, shape ``(N,)``.
        target: Labels, shape ``(N,)``, from 0.

    Returns:
        Bits, shape ``(N,)``.
    """
    frequency = np.bincount(target) / len(target)
    return np.asarray((log_probability - np.log(frequency[target])) / math.log(2))


def bootstrap_interval(values: Array, seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """95 % percentile interval of the mean over examples.

    Args:
        values: One an example, shape ``(N,)``, N at least 1.
        seed: Of the resampling.
        draws: Number of resamples.

    Returns:
        Lower and upper end.
    """
    generator = np.random.default_rng(seed)
    # Row by row: resamples of 100,000 examples at once would take a gigabyte.
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
