from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from lightning_attn.metrics.functional.adversarial import adversarial_jsd, jensen_shannon
from tests.toys import alone, toy_batch, toy_network


def test_divergence_equals_scipy():
    p, q = torch.rand(5, 7), torch.rand(5, 7)
    p[0, 0] = 0
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    expected = torch.tensor(jensenshannon(p.numpy(), q.numpy(), axis=-1)) ** 2
    torch.testing.assert_close(jensen_shannon(p, q), expected, atol=1e-6, rtol=0)


def test_equal_values_allow_any_attention():
    batch, network = toy_batch(lengths=(6,)), toy_network()
    output = network(batch)
    output.values = torch.ones_like(output.values)
    output.logits = network.classify(output.values, output.attention, batch)
    assert adversarial_jsd(network, output, batch, steps=200).item() > 0.3


def test_values_that_decide_allow_little():
    batch, network = toy_batch(lengths=(2,)), toy_network()
    output = network(batch)
    output.values = torch.zeros_like(output.values)
    output.values[0, 0], output.values[0, 1] = 10.0, -10.0
    with torch.no_grad():
        network.head.layers.bias.zero_()
        network.head.layers.weight[0], network.head.layers.weight[1] = 0.1, -0.1
        output.attention = torch.tensor([[0.505, 0.495]])
        output.logits = network.classify(output.values, output.attention, batch)
    assert adversarial_jsd(network, output, batch, steps=100).item() < 0.01


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_examples_are_independent(mode):
    network = toy_network()
    with mode():
        batch = toy_batch(special=True, pad_to=15)
        together = adversarial_jsd(network, network(batch), batch, steps=30)
        assert together.isnan().tolist() == [False, True, False, False]
        for row in (0, 2, 3):
            single = alone(batch, row)
            separate = adversarial_jsd(network, network(single), single, steps=30)
            assert together[row].item() == pytest.approx(separate[0].item(), abs=1e-4)
    assert ((together >= 0) & (together <= math.log(2)) | together.isnan()).all()
    assert all(parameter.grad is None for parameter in network.parameters())
