from __future__ import annotations

import pytest
import torch

from lightning_attn.metrics.adversarial import EdgeSolver, PublishedSolver
from lightning_attn.metrics.functional.alternatives import adversarial_jsd
from tests.helpers.toys import toy_batch, toy_network


@pytest.mark.parametrize("solver", [None, EdgeSolver(0.2), PublishedSolver(2, 5)])
def test_is_the_divergence_that_the_solver_finds(solver):
    batch, network = toy_batch(special=True, pad_to=15), toy_network()
    with torch.no_grad():
        output = network(batch)
    expected = (solver or EdgeSolver()).solve(network, output, batch).jsd
    found = adversarial_jsd(network, output, batch, solver, max_tokens=100)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, equal_nan=True)
    assert found.isnan().tolist() == [False, True, False, False]
