from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.metrics.functional import flip_first, flip_fraction
from lightning_attn.metrics.functional.erasure import (
    aopc,
    comprehensiveness,
    explained,
    log_odds,
    log_odds_floors,
    sufficiency,
)


def test_drops_are_means_over_the_budgets():
    full, perturbed = torch.tensor([0.8, 0.5]), torch.tensor([[0.6, 0.2], [0.5, 0.9]])
    for drop in (comprehensiveness, sufficiency, aopc):
        torch.testing.assert_close(drop(full, perturbed), torch.tensor([0.4, -0.2]))


def test_log_odds_is_the_mean_log_ratio_with_a_floor():
    full, perturbed = torch.tensor([0.8, 0.5]), torch.tensor([[0.4, 0.2], [0.0, 0.5]])
    expected = torch.tensor([(math.log(0.5) + math.log(0.25)) / 2, (math.log(1e-12) - math.log(0.5)) / 2])
    torch.testing.assert_close(log_odds(full, perturbed), expected)
    assert log_odds_floors(perturbed).tolist() == [0, 1]


def test_true_odds_are_differences_of_logits():
    full, perturbed = torch.tensor([0.8, 1.0]), torch.tensor([[0.4, 0.2], [0.0, 0.5]])
    found = log_odds(full, perturbed, true_odds=True)
    logits = [math.log(p / (1 - p)) for p in (0.8, 0.4, 0.2)]
    assert found[0].item() == torch.tensor((logits[1] + logits[2]) / 2 - logits[0]).item()
    # both parts are floored at 1e-12: p of 1 has odds of 1e12
    assert found[1].item() == torch.tensor((-2 * math.log(1e12) - math.log(1e12)) / 2).item()


def test_undefined_stays_undefined():
    full = torch.tensor([torch.nan])
    for drop in (comprehensiveness, sufficiency, aopc, log_odds):
        assert drop(full, torch.tensor([[0.5]])).isnan().all()


def test_explained_picks_the_class():
    probabilities = torch.arange(12.0).reshape(2, 2, 3)
    assert explained(probabilities, torch.tensor([2, 0])).tolist() == [[2, 5], [6, 9]]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(9, 20),
)
def test_the_smallest_count_that_flips(rows: list[list[tuple[int, int]]], n: int) -> None:
    width = max(map(len, rows))
    rows = [row + [row[-1]] * (width - len(row)) for row in rows]
    counts = torch.tensor([[count for count, _ in row] for row in rows])
    winners = torch.tensor([[winner for _, winner in row] for row in rows])
    probabilities = torch.nn.functional.one_hot(winners, 3) * 0.5 + 0.1
    target, sizes = torch.zeros(len(rows), dtype=torch.int64), torch.full((len(rows),), n)
    share, first = flip_fraction(probabilities, target, counts, sizes), flip_first(probabilities, target, counts)
    for number, row in enumerate(rows):
        flips = [count for count, winner in row if winner != 0 and count > 0]
        torch.testing.assert_close(share[number].item(), min(flips, default=n) / n, rtol=1e-6, atol=0)
        single = [winner != 0 for count, winner in row if count == 1]
        assert math.isnan(first[number]) if not single else first[number] == any(single)


def test_a_text_without_tokens_does_not_flip() -> None:
    found = flip_fraction(torch.tensor([[[0.1, 0.9]]]), torch.tensor([0]), torch.tensor([[0]]), torch.tensor([0]))
    assert found.tolist() == [1.0]
