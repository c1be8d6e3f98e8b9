from itertools import product

import numpy as np
import pytest

from lightning_attn.data.bags import (
    BagDataModule,
    BagTask,
    Conjunction,
    Count,
    ExclusiveOr,
    FixedSize,
    FourBags,
    GaussianClusters,
    Majority,
    Presence,
    PresenceWithVeto,
    class_posterior,
)
from lightning_attn.data.bags.bayes import count_distribution

TASKS = [Presence(), Count(2), Conjunction(), ExclusiveOr(), Majority(), PresenceWithVeto(), FourBags()]
tasks = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)


@tasks
def test_numbers_of_a_and_b_are_distributed_as_in_the_bags_that_are_made(task: BagTask) -> None:
    data = BagDataModule(task, size=FixedSize(6), witness_rate=0.3, train_size=12_000, val_size=1, test_size=1)
    data.setup()
    train = data.dataset("train")
    kinds = train.kinds.reshape(-1, 6)
    counts = np.stack([(kinds == 0).sum(axis=1), (kinds == 1).sum(axis=1) * (task.letters == 2)], axis=1)
    table = count_distribution(task, 6, 0.3)
    np.testing.assert_allclose(table.sum(axis=(1, 2)), 1)
    for label in range(len(task.classes)):
        seen = np.zeros((7, 7))
        np.add.at(seen, tuple(counts[train.labels == label].T), 1 / (train.labels == label).sum())
        np.testing.assert_allclose(seen, table[label], atol=0.03)


@tasks
def test_the_posterior_is_that_of_adding_up_all_ways_to_choose_a_and_b(task: BagTask) -> None:
    modality = GaussianClusters(clusters=4, dim=2, distance=2.0)
    features = np.random.default_rng(0).normal(size=(4, 2))
    density = np.exp(modality.log_likelihood(features, seed=0))
    background = density[:, task.letters :].mean(axis=1)
    table = count_distribution(task, 4, 0.3)
    joint = np.zeros(len(task.classes))
    ways = list(product(range(3 if task.letters == 2 else 2), repeat=4))  # 0 background, 1 A, 2 B
    sizes = [(way.count(1), way.count(2)) for way in ways]
    for way, counts in zip(ways, sizes, strict=True):
        likelihood = np.prod([background[i] if kind == 0 else density[i, kind - 1] for i, kind in enumerate(way)])
        joint += likelihood * table[:, counts[0], counts[1]] / sizes.count(counts)
    found = class_posterior(task, modality, features, 0.3, seed=0)
    np.testing.assert_allclose(found, joint / joint.sum(), rtol=1e-10)


def test_the_posterior_is_calibrated_and_better_than_guessing() -> None:
    modality = GaussianClusters(distance=3.0)
    data = BagDataModule(Conjunction(), modality, FixedSize(8), train_size=2, val_size=2, test_size=600)
    data.setup()
    test = data.dataset("test")
    found = np.stack([class_posterior(data.task, modality, test[row].inputs.numpy(), 0.2, 0)[1] for row in range(600)])
    assert found.mean() == pytest.approx(0.5, abs=0.04)
    sure = np.maximum(found, 1 - found)
    right = (found > 0.5) == test.labels
    assert right.mean() == pytest.approx(sure.mean(), abs=0.04)
    assert right.mean() > 0.75
