from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.data.bags import (
    BagTask,
    Conjunction,
    Count,
    ExclusiveOr,
    FourBags,
    Majority,
    Presence,
    PresenceWithVeto,
    Role,
)
from lightning_attn.errors import InputError
from tests.helpers.toy_bags import RULES

tasks = pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)


def counts_of(task: BagTask, sizes: np.ndarray, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    wanted, present = task.plan(len(sizes))
    drawn = np.random.default_rng(seed).binomial(sizes[:, None], rate, size=(len(sizes), 2))
    return task.counts(sizes, drawn, wanted, present), wanted


@tasks
@given(st.floats(0, 1), st.integers(0, 100))
def test_every_bag_is_of_the_class_that_was_planned(kind: type[BagTask], rate: float, seed: int) -> None:
    task = kind()
    sizes = np.random.default_rng(seed).integers(task.least, task.least + 9, size=40)
    counts, wanted = counts_of(task, sizes, rate, seed)
    assert (counts >= 0).all()
    assert (counts.sum(axis=1) <= sizes).all()
    assert task.letters == 2 or not counts[:, 1].any()
    assert task.label(counts).tolist() == wanted.tolist() == [RULES[kind](a, b) for a, b in counts.tolist()]


@tasks
def test_classes_and_the_cases_within_a_class_are_equally_frequent(kind: type[BagTask]) -> None:
    wanted, present = kind().plan(120)
    assert set(Counter(wanted.tolist()).values()) == {120 // len(kind.classes)}
    for label, cases in enumerate(kind.cases):
        seen = Counter(map(tuple, present[wanted == label].tolist()))
        assert set(seen) == set(cases)
        assert len(set(seen.values())) == 1


def without(letter: int, counts: list[int]) -> list[int]:
    return [0 if place == letter else count for place, count in enumerate(counts)]


@pytest.mark.parametrize(
    "kind", [Presence, Count, Conjunction, ExclusiveOr, PresenceWithVeto], ids=lambda k: k.__name__
)
def test_evidence_is_what_the_label_would_change_without(kind: type[BagTask]) -> None:
    task = kind()
    for a, b in product(range(5), range(5) if task.letters == 2 else [0]):
        roles = task.roles(np.array([[a, b]]))[0]
        for letter, count in enumerate((a, b)):
            if count:
                changes = RULES[kind](a, b) != RULES[kind](*without(letter, [a, b]))
                assert (roles[letter] in task.decisive) == changes, (a, b, letter)


def test_majority_and_four_bags_need_every_a_and_b() -> None:
    for task in (Majority(), FourBags()):
        for counts in ([2, 1], [1, 2], [3, 1]):
            assert set(task.roles(np.array([counts]))[0]) <= task.decisive


@pytest.mark.parametrize(
    ("task", "counts", "roles"),
    [
        (Presence(), [2, 0], [Role.KEY, None]),
        (Count(2), [1, 0], [Role.SUPPORTING, None]),
        (Count(2), [2, 0], [Role.KEY, None]),
        (Conjunction(), [1, 3], [Role.KEY, Role.KEY]),
        (Conjunction(), [0, 3], [None, Role.SUPPORTING]),
        (ExclusiveOr(), [0, 3], [None, Role.KEY]),
        (ExclusiveOr(), [1, 3], [Role.REFUTING, Role.REFUTING]),
        (Majority(), [2, 1], [Role.KEY, Role.REFUTING]),
        (Majority(), [1, 2], [Role.SUPPORTING, Role.REFUTING]),
        (PresenceWithVeto(), [2, 0], [Role.KEY, None]),
        (PresenceWithVeto(), [2, 1], [Role.SUPPORTING, Role.REFUTING]),
        (PresenceWithVeto(), [0, 1], [None, Role.NEUTRAL]),
        (FourBags(), [1, 1], [Role.KEY, Role.KEY]),
    ],
)
def test_roles_by_hand(task: BagTask, counts: list[int], roles: list[Role | None]) -> None:
    for found, expected in zip(task.roles(np.array([counts]))[0], roles, strict=True):
        assert expected is None or found == expected


def test_count_stays_near_its_threshold() -> None:
    counts, wanted = counts_of(Count(4), np.full(400, 20), 0.2, 0)
    assert (counts[wanted == 1, 0] == 4).mean() > 0.3
    assert (counts[wanted == 0, 0] == 3).mean() > 0.3


def test_a_count_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="k of at least 1, not 0"):
        Count(0)
