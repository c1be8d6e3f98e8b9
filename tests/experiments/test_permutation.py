from __future__ import annotations

import pytest
import torch

from lightning_attn.errors import InputError
from lightning_attn.experiments import permutation
from lightning_attn.metrics.functional import permutation_tvd
from tests.helpers.toys import toy_batch, toy_network


def test_is_the_metric_and_the_largest_weight_that_moves():
    network, batch = toy_network(attend_special=True), toy_batch(special=True)
    found = permutation(network, batch, permutations=9, seed=4)
    with torch.no_grad():
        output = network(batch)
    expected = permutation_tvd(network, output, batch, 9, 4)
    torch.testing.assert_close(found.change, expected, atol=1e-6, rtol=0, equal_nan=True)
    for row in (0, 2, 3):
        assert found.largest[row].item() == pytest.approx(output.attention[row, batch.inner[row]].max().item())
    assert found.largest[1] == 0.0  # nothing but a special token


@pytest.mark.parametrize("max_tokens", [1, 13, 100])
def test_parts_and_lightnings_hooks_change_nothing(max_tokens):
    network, batch = toy_network(), toy_batch()
    expected = permutation(network, batch)
    network.train()
    with torch.inference_mode():
        found = permutation(network, batch, max_tokens=max_tokens)
    assert network.training
    for name, values in vars(expected).items():
        torch.testing.assert_close(getattr(found, name).clone(), values, atol=1e-5, rtol=0, equal_nan=True)


def test_no_permutation_is_the_users_mistake():
    with pytest.raises(InputError, match="permutations of at least 1, not 0"):
        permutation(toy_network(), toy_batch(), permutations=0)
