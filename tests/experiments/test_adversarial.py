from __future__ import annotations

import pytest
import torch

from lightning_attn.errors import InputError
from lightning_attn.experiments import EdgeSolver, PublishedSolver, adversarial
from lightning_attn.metrics.adversarial import AdversarialSolver
from tests.helpers.toy_pairs import paired, pairs
from tests.helpers.toys import toy_batch, toy_network


@pytest.mark.parametrize("solver", [None, EdgeSolver(0.1), PublishedSolver(2, 5)])
def test_is_what_the_solver_finds_in_parts_too(solver: AdversarialSolver | None) -> None:
    network, batch = toy_network(), toy_batch(special=True)
    with torch.no_grad():
        expected = (solver or EdgeSolver()).solve(network, network(batch), batch)
    network.train()
    for max_tokens in (1, 30, 16384):
        with torch.inference_mode():
            found = adversarial(network, batch, solver=solver, max_tokens=max_tokens)
        torch.testing.assert_close(found.jsd.clone(), expected.jsd, atol=1e-5, rtol=0, equal_nan=True)
        torch.testing.assert_close(found.change.clone(), expected.change, atol=1e-4, rtol=0, equal_nan=True)
        assert found.attention.shape == batch.valid.shape
    assert network.training


def test_pairs_are_searched() -> None:
    found = adversarial(paired("average"), pairs())
    assert found.jsd.isnan().tolist() == [False, False, True, False]
    assert (found.jsd.nan_to_num() > 0).sum() == 3


def test_no_budget_is_the_users_mistake() -> None:
    with pytest.raises(InputError, match=r"max_tokens.*at least 1, not 0"):
        adversarial(toy_network(), toy_batch(), max_tokens=0)
