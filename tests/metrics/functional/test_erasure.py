from __future__ import annotations

import math

import torch

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
