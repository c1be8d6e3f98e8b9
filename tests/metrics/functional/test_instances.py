"""Instance metrics against scikit-learn, brute force over all orders of ties, and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from lightning_attn.metrics.functional import INSTANCE_MEASURES, aopc_r, instance_measures, log_weights, ranked_measures

BAG = st.integers(2, 9).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-3, 3), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


def padded(bags: list[tuple[list[int], list[bool]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, evidence and inner positions, with garbage where no instance stands."""
    length = max(len(scores) for scores, _ in bags) + 1
    scores, evidence = torch.full((len(bags), length), 9.0), torch.full((len(bags), length), torch.nan)
    inner = torch.zeros(len(bags), length, dtype=torch.bool)
    for row, (values, keys) in enumerate(bags):
        scores[row, : len(values)] = torch.tensor(values, dtype=torch.float32)
        evidence[row, : len(values)] = torch.tensor(keys, dtype=torch.float32)
        inner[row, : len(values)] = True
    return scores, evidence, inner


def precision_over_all_orders_of_ties(scores: list[int], keys: list[bool]) -> float:
    found = []
    for order in itertools.permutations(range(len(scores))):
        ranked = sorted(order, key=lambda i: -scores[i])  # stable: ties as in the permutation
        found.append(np.mean([keys[i] for i in ranked[: sum(keys)]]))
    return float(np.mean(found))


@settings(deadline=None)
@given(st.lists(BAG, min_size=1, max_size=5))
def test_rankings_are_as_scikit_learn_says(bags: list[tuple[list[int], list[bool]]]) -> None:
    found = ranked_measures(*padded(bags))
    for row, (scores, keys) in enumerate(bags):
        if not 0 < sum(keys) < len(keys):
            assert all(value[row].isnan() for value in found.values())
            continue
        expected = {
            "auroc": roc_auc_score(keys, scores),
            "average_precision": average_precision_score(keys, scores),
            "ndcg": ndcg_score([keys], [scores], k=sum(keys)),
        }
        for name, value in expected.items():
            assert float(found[name][row]) == pytest.approx(value, abs=1e-6), name


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6))
def test_precision_is_its_mean_over_all_orders_of_ties(bag: list[tuple[int, bool]]) -> None:
    scores, keys = [score for score, _ in bag], [key for _, key in bag]
    found = float(ranked_measures(*padded([(scores, keys)]))["precision"])
    if 0 < sum(keys) < len(keys):
        assert found == pytest.approx(precision_over_all_orders_of_ties(scores, keys))
    else:
        assert math.isnan(found)


@given(st.lists(BAG, min_size=1, max_size=4))
def test_mass_is_as_its_formulas_say(bags: list[tuple[list[int], list[bool]]]) -> None:
    scores, evidence, inner = padded(bags)
    found = instance_measures(log_weights(scores, inner), evidence, inner)
    assert tuple(found) == INSTANCE_MEASURES
    for row, (values, marks) in enumerate(bags):
        if not 0 < sum(marks) < len(marks):
            assert all(value[row].isnan() for value in found.values())
            continue
        weights, keys = np.exp(values) / np.exp(values).sum(), np.array(marks)
        expected = {
            "key_mass": weights[keys].sum(),
            "effective_instances": np.exp(entropy(weights)),
            "key_rate": keys.mean(),
            "covered": (weights[keys] > 1 / len(keys) + 1e-12).mean(),
        }
        for name, value in expected.items():
            assert float(found[name][row]) == pytest.approx(value, abs=1e-6), name


def test_a_bag_is_measured_alike_alone_and_padded() -> None:
    bags = [([3, 1, 2, 0], [True, False, True, False]), ([1, 2], [True, False])]
    together = instance_measures(log_weights(padded(bags)[0], padded(bags)[2]), *padded(bags)[1:])
    for row, bag in enumerate(bags):
        scores, evidence, inner = padded([bag])
        alone = instance_measures(log_weights(scores, inner), evidence, inner)
        assert all(torch.equal(alone[name][0], together[name][row]) for name in alone)


def test_the_order_of_tied_instances_says_nothing() -> None:
    bags = [([0] * 6, [bool(i in pair) for i in range(6)]) for pair in itertools.combinations(range(6), 2)]
    found = ranked_measures(*padded(bags))
    assert found["auroc"].tolist() == [0.5] * len(bags)
    assert all(value.unique().numel() == 1 for value in found.values())
    assert float(found["precision"][0]) == pytest.approx(1 / 3)


def test_saturation_makes_no_ties() -> None:
    scores, inner = torch.tensor([[500.0, 300.0, 299.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
    evidence = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    weights = scores.softmax(dim=-1)
    assert weights[0, 1:].tolist() == [0.0, 0.0, 0.0]
    assert float(ranked_measures(weights, evidence, inner)["auroc"]) == pytest.approx(1 / 3), "what ties would give"
    found = instance_measures(log_weights(scores, inner), evidence, inner)
    assert float(found["auroc"]) == pytest.approx(2 / 3)
    assert float(found["key_mass"]) == pytest.approx(math.exp(-200), rel=1e-6)
    lowest = torch.finfo(torch.float32).min
    assert log_weights(torch.tensor([[lowest, 0.0]]), inner[:, :2]).isfinite().all()


def test_instances_of_unknown_evidence_do_not_count() -> None:
    scores, evidence, inner = padded([([3, 2, 1], [True, False, True])])
    evidence[0, 2] = torch.nan
    found = instance_measures(log_weights(scores, inner), evidence, inner)
    assert float(found["auroc"]) == float(found["average_precision"]) == 1.0
    assert float(found["key_rate"]) == 0.5
    assert float(found["key_mass"]) == pytest.approx(math.exp(3) / (math.exp(3) + math.exp(2) + math.exp(1)))


def test_aopc_r_is_the_drop_beyond_that_of_random_orders() -> None:
    generator = torch.Generator().manual_seed(0)
    full, ranked, random = (torch.rand(shape, generator=generator) for shape in ((3,), (3, 4), (3, 5, 4)))
    drops = [[float((full[b] - random[b, r]).mean()) for r in range(5)] for b in range(3)]
    expected = [float((full[b] - ranked[b]).mean()) - np.mean(drops[b]) for b in range(3)]
    assert aopc_r(ranked, random).tolist() == pytest.approx(expected, abs=1e-6)
