"""How well any classifier could do: the posterior of the class given all that is in a bag, `class_posterior`."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from lightning_attn.data.bags.modalities.base import GeneratedModality
from lightning_attn.data.bags.tasks import BagTask
from lightning_attn.data.encoded import Array


def count_distribution(task: BagTask, size: int, witness_rate: float) -> Array:
    """Probability of every pair of numbers of A and B in bags of each class.

    Args:
        task: What decides the label.
        size: Instances n of the bag.
        witness_rate: That of the data module.

    Returns:
        Shape ``(C, n + 1, n + 1)``; each class sums to 1.
    """
    numbers = np.arange(size + 1)
    drawn = np.stack(np.meshgrid(numbers, numbers, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = binom.pmf(drawn, size, witness_rate).prod(axis=1)
    sizes = np.full(len(drawn), size)
    table = np.zeros((len(task.classes), size + 1, size + 1))
    for label, cases in enumerate(task.cases):
        for case in cases:
            counts = task.counts(sizes, drawn, np.full(len(drawn), label), np.tile(case, (len(drawn), 1)))
            np.add.at(table[label], (counts[:, 0], counts[:, 1]), weight / len(cases))
    return table


def class_posterior(
    task: BagTask, modality: GeneratedModality, features: Array, witness_rate: float, seed: int
) -> Array:
    """Probability of each class given the instances of one bag, shape ``(C,)``: what no classifier can beat on average.

    For bags without confounders. The instances are exchangeable, so the likelihood of the bag given a As and b Bs is
    the mean over all ways to choose them; a recursion over instances adds those up in ``O(n**3)``. Meant for bags of up
    to some 50 instances.

    Args:
        task: What decides the label.
        modality: One whose likelihood is known.
        features: Those of the bag, shape ``(n, ...)``.
        witness_rate: That of the data module.
        seed: That of the data module.
    """
    likelihood = modality.log_likelihood(features, seed)
    likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    background = likelihood[:, task.letters :].mean(axis=1)
    second = likelihood[:, 1] if task.letters == 2 else np.zeros(len(features))
    # mean over all ways to make a of the first i instances A and b of them B: the next instance is A with share
    # (a + 1) / (i + 1) of those ways, and so on
    size = len(features)
    mean = np.zeros((size + 1, size + 1))
    mean[0, 0] = 1
    a, b = np.meshgrid(np.arange(size + 1), np.arange(size + 1), indexing="ij")
    for number, (first, other, rest) in enumerate(zip(likelihood[:, 0], second, background, strict=True), 1):
        grown = np.maximum(number - a - b, 0) / number * rest * mean
        grown[1:] += a[1:] / number * first * mean[:-1]
        grown[:, 1:] += b[:, 1:] / number * other * mean[:, :-1]
        mean = grown / grown.max()  # a factor that all classes share
    joint = (count_distribution(task, size, witness_rate) * mean).sum(axis=(1, 2))
    return joint / joint.sum()  # type: ignore[no-any-return]  # classes are equally frequent
