from __future__ import annotations

import itertools

import pytest
import torch

from lightning_attn.metrics.functional.permutation import permutation_tvd, permute, total_variation
from lightning_attn.randomness import mix
from tests.toys import alone, toy_batch, toy_network


def test_permutations_move_inner_weights_only():
    batch = toy_batch(special=True, pad_to=15)
    attention = torch.rand(4, 15)
    for seed in range(20):
        moved = permute(attention, batch, seed)
        assert torch.equal(moved[~batch.inner], attention[~batch.inner])
        for row in range(4):
            inner = batch.inner[row]
            assert torch.equal(moved[row, inner].sort().values, attention[row, inner].sort().values)


def test_every_permutation_is_equally_likely():
    batch = toy_batch(lengths=(3,))
    attention = torch.tensor([[1.0, 2.0, 3.0]])
    drawn = [tuple(permute(attention, batch, seed)[0].tolist()) for seed in range(6000)]
    counts = torch.tensor([drawn.count(order) for order in itertools.permutations((1.0, 2.0, 3.0))])
    assert counts.sum() == 6000
    assert ((counts - 1000).abs() < 150).all()  # 5 standard deviations


@pytest.mark.parametrize("multi_label", [False, True])
def test_two_tokens_have_one_other_order(multi_label):
    batch = toy_batch(lengths=(2,), classes=3, multi_label=multi_label)
    network = toy_network(classes=3, multi_label=multi_label)
    output = network(batch)
    swapped = network.classify(output.values, output.attention.flip(1), batch)
    p, q = (network.schema.probabilities(logits)[0] for logits in (output.logits, swapped))
    change = (p - q).abs().mean() if multi_label else (p - q).abs().sum() / 2
    found = {round(permutation_tvd(network, output, batch, 1, seed).item(), 5) for seed in range(12)}
    assert found == {0.0, round(change.item(), 5)}


def test_median_equals_a_loop():
    batch, network = toy_batch(), toy_network()
    with torch.no_grad():
        output = network(batch)
    seeds = mix(torch.arange(10) + 3 * 10).tolist()
    for row in (0, 2, 3):
        changes = []
        for seed in seeds:
            moved = permute(output.attention, batch, seed)
            p = network.classify(output.values, moved, batch).softmax(-1)[row]
            changes.append((p - output.logits.softmax(-1)[row]).abs().sum().item() / 2)
        expected = torch.tensor(changes).quantile(0.5)
        torch.testing.assert_close(permutation_tvd(network, output, batch, 10, 3)[row], expected, atol=1e-6, rtol=0)


def test_does_not_depend_on_padding_or_neighbours_and_needs_two_tokens():
    batch, network = toy_batch(special=True, pad_to=20), toy_network()
    together = permutation_tvd(network, network(batch), batch)
    assert together.isnan().tolist() == [False, True, False, False]
    for row in (0, 2, 3):
        single = alone(batch, row)
        separate = permutation_tvd(network, network(single), single)
        torch.testing.assert_close(together[row], separate[0], atol=1e-5, rtol=0)


def test_total_variation_of_one_label_is_the_difference():
    p, q = torch.tensor([[0.7]]), torch.tensor([[0.4]])
    torch.testing.assert_close(total_variation(p, q, multi_label=True), torch.tensor([0.3]))
