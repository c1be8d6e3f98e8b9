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


def test_undefined_stays_undefined():
    full = torch.tensor([torch.nan])
    for drop in (comprehensiveness, sufficiency, aopc, log_odds):
        assert drop(full, torch.tensor([[0.5]])).isnan().all()


def test_explained_picks_the_class():
    probabilities = torch.arange(12.0).reshape(2, 2, 3)
    assert explained(probabilities, torch.tensor([2, 0])).tolist() == [[2, 5], [6, 9]]
