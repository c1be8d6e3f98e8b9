from __future__ import annotations

import pytest
import torch

from lightning_attn.attribution.gradients import embedding_gradient
from tests.helpers.toys import alone, toy_batch, toy_network


def numeric(network, batch, attention_fixed: bool) -> torch.Tensor:
    """Central differences in float64."""
    network = network.double()
    with torch.no_grad():
        embeddings = network.embed(batch)
        output = network(batch)
        target = output.logits.argmax(-1)
        fixed = output.attention if attention_fixed else None
        result = torch.zeros_like(embeddings)
        step = 1e-5
        for position in range(embeddings.shape[1]):
            for d in range(embeddings.shape[2]):
                values = []
                for sign in (1, -1):
                    moved = embeddings.clone()
                    moved[:, position, d] += sign * step
                    logits = network(batch, embeddings=moved, attention=fixed).logits
                    values.append(logits.softmax(-1).gather(-1, target[:, None])[:, 0])
                result[:, position, d] = (values[0] - values[1]) / (2 * step)
    return result


@pytest.mark.parametrize("attention_fixed", [True, False])
def test_gradient_is_that_of_finite_differences(attention_fixed):
    batch = toy_batch(lengths=(5, 3))
    found = embedding_gradient(toy_network(), batch, attention_fixed=attention_fixed).gradient
    expected = numeric(toy_network(), batch, attention_fixed)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-3)


def test_padding_changes_nothing():
    batch, network = toy_batch(pad_to=20), toy_network()
    together = embedding_gradient(network, batch).gradient
    for row in range(len(batch)):
        single = embedding_gradient(network, alone(batch, row)).gradient
        torch.testing.assert_close(together[row, : single.shape[1]], single[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_in_lightnings_hooks_and_leaves_no_trace(mode):
    network = toy_network()
    expected = embedding_gradient(network, toy_batch()).gradient
    network.train()
    network.head.eval()
    with mode():
        batch = toy_batch()
        found = embedding_gradient(network, batch).gradient
        assert torch.is_grad_enabled() is False
    torch.testing.assert_close(found.clone(), expected, atol=1e-6, rtol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training
    assert not network.head.training


def test_the_class_can_be_chosen():
    batch, network = toy_batch(), toy_network()
    first = embedding_gradient(network, batch, torch.zeros(4, dtype=torch.int64)).gradient
    second = embedding_gradient(network, batch, torch.ones(4, dtype=torch.int64)).gradient
    torch.testing.assert_close(first, -second, atol=1e-6, rtol=0)  # two probabilities that sum to 1
