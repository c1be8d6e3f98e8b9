"""Label information in the attention weights alone, read by a small cross-fitted probe, in bits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.concentration import entropy

_BINS, _EDGE, _PROFILE = 10, 4, 8
#: Numbers :func:`attention_features` makes of an example; the first two describe its length alone.
FEATURES = 2 + 6 + _BINS + 2 * _EDGE + _PROFILE
LENGTH_FEATURES = 2
#: Columns that stay the same when the weights change places: length, entropy, share, peak, and the weights in order.
ORDER_FREE = (0, 1, 2, 3, 4, *range(FEATURES - _PROFILE, FEATURES))
#: Inverse penalties of the probe, from hardly any information to nearly free.
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)

#: What is said of a network whose attention cannot be measured.
DIVERGED = (
    "The network's attention or output holds NaN or infinity: training diverged. Take an earlier checkpoint, "
    "or train again with a smaller learning rate or gradient clipping."
)

Array = NDArray[np.float64]


def attention_features(attention: Tensor, inner: Tensor) -> Tensor:
    """What the probe reads of an attention vector: nothing of the text.

    Length; entropy, peak, spread and place; mass in ten tenths of the text and at its first and last four positions;
    the largest weights in order.

    Args:
        attention: Shape ``(B, L)``.
        inner: Positions that may be attended, shape ``(B, L)``, bool.

    Returns:
        Shape ``(B, FEATURES)``, float32; padding does not change it.
    """
    weights = (attention * inner).float()
    n = inner.sum(dim=-1, keepdim=True)
    size = n.clamp(min=1).float()
    rank = (inner.cumsum(dim=-1) - 1).clamp(min=0)
    place = (rank + 0.5) / size * inner
    mean = (weights * place).sum(dim=-1, keepdim=True)
    spread = (weights * (place - mean).square()).sum(dim=-1, keepdim=True)
    uncertainty = entropy(weights)[:, None]
    peak, where = weights.max(dim=-1, keepdim=True)
    tenth = (place * _BINS).long().clamp(max=_BINS - 1)
    bins = weights.new_zeros(len(weights), _BINS).scatter_add(-1, tenth, weights)
    at = [(weights * (end == step)).sum(dim=-1) for end in (rank, n - 1 - rank) for step in range(_EDGE)]
    top = weights.topk(min(_PROFILE, weights.shape[-1]), dim=-1).values
    profile = torch.nn.functional.pad(top, (0, _PROFILE - top.shape[-1]))
    summary = [uncertainty, uncertainty.exp() / size, peak, place.gather(-1, where), mean, spread.clamp(min=0).sqrt()]
    return torch.cat([size.log(), 1 / size, *summary, bins, torch.stack(at, dim=-1), profile], dim=-1)


@dataclass(frozen=True)
class Leakage:
    """What a probe found; every number NaN if ``reason`` says why nothing could be found.

    Attributes:
        leaked_bits: ``(H(Y) - NLL) / ln 2`` on held-out examples; about 0 if the attention says nothing about the
            label, somewhat below if the probe overfits. A lower bound on what the attention tells.
        low: Lower end of the 95 % bootstrap interval of ``leaked_bits``.
        high: Upper end.
        order_free_bits: The same from features that do not say where the weights stand; what ``leaked_bits`` has
            more is told by places.
        length_bits: The same from the length of the text alone: a mask of that length cannot tell less.
        mask_only_accuracy: Accuracy of the probe, held out.
        fano_bits: Bits that such an accuracy implies by Fano's inequality.
        count: Examples used.
        reason: Empty, or why there is no result.
        gains: Bits of each example, whose mean is ``leaked_bits``, shape ``(N,)``: NaN for examples that were left out;
            empty if there is no result.
    """

    leaked_bits: float = math.nan
    low: float = math.nan
    high: float = math.nan
    order_free_bits: float = math.nan
    length_bits: float = math.nan
    mask_only_accuracy: float = math.nan
    fano_bits: float = math.nan
    count: int = 0
    reason: str = ""
    gains: Array = field(default_factory=lambda: np.empty(0), compare=False, repr=False)


def leaked_bits(features: Array, target: NDArray[np.int64], folds: int = 5, seed: int = 0) -> Leakage:
    """Bits about the label that a regularised logistic regression reads from attention features.

    Each example is predicted by a probe that was not fitted on it. The penalty is chosen inside the fitting part, and
    the strongest one predicts the label frequencies: attention that says nothing gives about 0 bits.

    Args:
        features: From :func:`attention_features`, shape ``(N, FEATURES)``.
        target: Class indices, shape ``(N,)``. Classes with fewer than two examples in each fold are left out.
        folds: Parts of the data, at least 2.
        seed: Of the parts and the bootstrap.

    Returns:
        The result; the same input gives the same result.

    Raises:
        InputError: A feature is NaN or infinite.
    """
    if not np.isfinite(features).all():
        raise InputError(DIVERGED)
    classes, counts = np.unique(target, return_counts=True)
    usable = classes[counts >= 2 * folds]
    if len(usable) < 2:
        return Leakage(
            count=len(target), reason=f"Fewer than two classes have {2 * folds} examples, which {folds} folds need."
        )
    chosen = np.isin(target, usable)
    features, target = features[chosen], np.searchsorted(usable, target[chosen])
    held_out = _held_out(features, target, folds, seed)
    gain = _bits(held_out, target)
    gains = np.full(len(chosen), np.nan)
    gains[chosen] = gain
    low, high = bootstrap_interval(gain, seed)
    accuracy = float((held_out.argmax(axis=1) == target).mean())
    return Leakage(
        leaked_bits=float(gain.mean()),
        low=low,
        high=high,
        order_free_bits=float(_bits(_held_out(features[:, ORDER_FREE], target, folds, seed), target).mean()),
        length_bits=float(_bits(_held_out(features[:, :LENGTH_FEATURES], target, folds, seed), target).mean()),
        mask_only_accuracy=accuracy,
        fano_bits=fano_bits(np.bincount(target) / len(target), accuracy),
        count=len(target),
        gains=gains,
    )


def fano_bits(prior: Array, accuracy: float) -> float:
    """Least information, in bits, that a predictor of this accuracy can have about a label.

    Args:
        prior: Class frequencies, shape ``(C,)``, sum 1.
        accuracy: In [0, 1].

    Returns:
        ``H(Y) - H_b(e) - e log2(C - 1)`` with ``e = 1 - accuracy``; negative where it says nothing.
    """
    error = 1 - accuracy
    binary = -sum(p * math.log2(p) for p in (error, accuracy) if p > 0)
    entropy_bits = -float((prior[prior > 0] * np.log2(prior[prior > 0])).sum())
    return entropy_bits - binary - error * math.log2(max(1, len(prior) - 1))


def _bits(probabilities: Array, target: NDArray[np.int64]) -> Array:
    return bits_gained(np.log(probabilities[np.arange(len(target)), target]), target)


def _held_out(features: Array, target: NDArray[np.int64], folds: int, seed: int) -> Array:
    """Class probabilities ``(N, C)`` of each example by a probe that did not see it."""
    found = np.empty((len(target), int(target.max()) + 1))
    for fit, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, target):
        penalty = _best_penalty(features[fit], target[fit], seed)
        found[test] = next(iter(_predictions(features[fit], target[fit], features[test], [penalty])))
    return found


def _best_penalty(features: Array, target: NDArray[np.int64], seed: int) -> float | None:
    """The penalty with the least held-out loss in the fitting part; None if the label frequencies predict better."""
    penalties = (None, *_PENALTIES)
    losses = np.zeros(len(penalties))
    for fit, test in StratifiedKFold(3, shuffle=True, random_state=seed).split(features, target):
        for column, found in enumerate(_predictions(features[fit], target[fit], features[test], penalties)):
            losses[column] -= np.log(found[np.arange(len(test)), target[test]]).sum()
    return penalties[int(losses.argmin())]


def _predictions(
    fit: Array, target: NDArray[np.int64], test: Array, penalties: Sequence[float | None]
) -> Iterator[Array]:
    """Class probabilities of ``test`` by a probe with each penalty, each fitted from the one before.

    They are mixed with a little of the frequencies, which None stands for, so that no logarithm is infinite.
    """
    prior = np.bincount(target) / len(target)
    scaler = StandardScaler().fit(fit)
    fit, test = scaler.transform(fit), scaler.transform(test)
    probe = LogisticRegression(solver="newton-cholesky", warm_start=True, max_iter=200)
    for penalty in penalties:
        if penalty is None:
            yield np.broadcast_to(prior, (len(test), len(prior)))
            continue
        with warnings.catch_warnings():
            # A probe that has not converged is a somewhat worse lower bound, not an error.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = probe.set_params(C=penalty).fit(fit, target).predict_proba(test)
        yield np.asarray(0.99 * found + 0.01 * prior)


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


@dataclass(frozen=True)
class MaskProbe:
    """What a logistic regression says from masks alone, held out.

    Attributes:
        accuracy: Share of examples whose class it names; NaN if there is no result.
        bits: ``(H(Y) - NLL) / ln 2``; NaN if there is no result.
        reason: Empty, or why there is no result.
    """

    accuracy: float = math.nan
    bits: float = math.nan
    reason: str = ""


def mask_probe(features: Array, target: NDArray[np.int64], folds: int = 5, seed: int = 0) -> MaskProbe:
    """How well a class can be told from a description of masks; the probe of :func:`leaked_bits` for any features.

    Args:
        features: Shape ``(N, F)``.
        target: Class indices, shape ``(N,)``. Classes with fewer than two examples in each fold are left out.
        folds: Parts of the data, at least 2.
        seed: Of the parts.
    """
    classes, counts = np.unique(target, return_counts=True)
    usable = classes[counts >= 2 * folds]
    if len(usable) < 2:
        return MaskProbe(reason=f"Fewer than two classes have {2 * folds} examples, which {folds} folds need.")
    used = np.isin(target, usable)
    features, target = features[used], np.searchsorted(usable, target[used])
    predicted = _held_out(features, target, folds, seed)
    accuracy = float((predicted.argmax(axis=1) == target).mean())
    return MaskProbe(accuracy, float(_bits(predicted, target).mean()))
