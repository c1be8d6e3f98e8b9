"""Paired differences with 95 % intervals over seeds and examples, and their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True)
class Metric:
    """A column: how it is called, and whether more is better (1) or less (-1)."""

    label: str
    direction: int


#: By the name of the row; what ends in ``_gain`` is less the same of a random ranking in the same network, or of the
#: masks of other texts.
METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", 1),
    "kendall_gradient": Metric("tau gradient", 1),
    "kendall_loo": Metric("tau LOO", 1),
    "comprehensiveness": Metric("comprehensiveness", 1),
    "comprehensiveness_gain": Metric("comprehensiveness - random", 1),
    "sufficiency": Metric("sufficiency", -1),
    "sufficiency_gain": Metric("sufficiency - random", -1),
    "flip_fraction": Metric("flip fraction", -1),
    "flip_fraction_gain": Metric("flip fraction - random", -1),
    "flip_first": Metric("flips at first", 1),
    "auprc": Metric("AUPRC", 1),
    "head_bits": Metric("head bits", -1),
    "leaked_bits": Metric("leaked bits", -1),
    "encoding_bits": Metric("encoding bits", -1),
    "encoding_gain": Metric("encoding bits - control", -1),
    "evalx_accuracy": Metric("EVAL-X", 1),
    "agreement": Metric("tau(A, B)", 1),
    "aopc": Metric("AOPC", 1),
    "log_odds": Metric("log-odds", -1),
    "answer_recall": Metric("answer recall@20", 1),
}


def metric_of(name: str) -> Metric:
    """The metric of a row, whatever its version."""
    return METRICS[name.split("/")[-1]]


@dataclass(frozen=True)
class Difference:
    """A mean difference and its 95 % interval."""

    mean: float
    low: float
    high: float

    def verdict(self, direction: int) -> str:
        """``better`` or ``worse`` if the interval leaves out 0, else ``undecided``."""
        if not (self.low > 0 or self.high < 0):  # NaN too
            return "undecided"
        return "better" if (self.mean > 0) == (direction > 0) else "worse"

    def __str__(self) -> str:
        text = f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return f"**{text}**" if self.low > 0 or self.high < 0 else text


@lru_cache(maxsize=32)
def _weights(size: int, stream: int) -> Array:
    """How often each of ``size`` things is drawn in each resample, shape ``(RESAMPLES, size)``."""
    generator = np.random.default_rng([size, stream])
    return generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES).astype(np.float64)


def paired(arm: Sequence[Array], reference: Sequence[Array]) -> Difference | None:
    """Mean of ``arm - reference`` over seeds and examples, with a bootstrap over both.

    Each resample draws seeds and, independently, examples, which all seeds share: two ways in which another evidence
    would differ (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 2007: rather too wide than too narrow).

    Args:
        arm: One array per seed, each ``(N,)``, NaN where undefined.
        reference: The same seeds and examples.

    Returns:
        None if there is no pair of figures.
    """
    if not len(arm):
        return None
    difference = np.stack(arm) - np.stack(reference)
    known = ~np.isnan(difference)
    if not known.any():
        return None
    seeds, examples = (_weights(size, stream) for stream, size in enumerate(difference.shape))
    total = ((seeds @ np.nan_to_num(difference)) * examples).sum(axis=1)
    count = ((seeds @ known) * examples).sum(axis=1)
    low, high = np.quantile((total / np.maximum(count, 1))[count > 0], [0.025, 0.975])
    return Difference(float(difference[known].mean()), float(low), float(high))
