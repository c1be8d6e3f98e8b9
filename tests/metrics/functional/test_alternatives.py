from __future__ import annotations

import itertools

import pytest
import torch

from lightning_attn.errors import InputError
from lightning_attn.metrics.adversarial import EdgeSolver, PublishedSolver
from lightning_attn.metrics.functional.alternatives import adversarial_jsd, permutation_tvd, permute
from tests.helpers.toys import alone, toy_batch, toy_network


def test_permutations_move_inner_weights_only():
    batch = toy_batch(special=True, pad_to=15)
    attention = torch.rand(4, 15)
    for moved in permute(attention, batch, torch.arange(20)).unbind(1):
        assert torch.equal(moved[~batch.inner], attention[~batch.inner])
        for row in range(4):
            inner = batch.inner[row]
            assert torch.equal(moved[row, inner].sort().values, attention[row, inner].sort().values)


@pytest.mark.parametrize("index", [0, 17])
def test_every_permutation_is_equally_likely(index):
    batch = toy_batch(lengths=(3,)).replace(index=torch.tensor([index]))
    attention = torch.tensor([[1.0, 2.0, 3.0]])
    drawn = [tuple(order) for order in permute(attention, batch, torch.arange(6000))[0].tolist()]
    counts = torch.tensor([drawn.count(order) for order in itertools.permutations((1.0, 2.0, 3.0))])
    assert counts.sum() == 6000
    assert ((counts - 1000).abs() < 150).all()  # 5 standard deviations


def test_examples_and_numbers_are_permuted_independently():
    batch = toy_batch(lengths=(12, 12))
    attention = torch.arange(12.0).expand(2, -1)
    moved = permute(attention, batch, torch.arange(50))
    orders = {tuple(order) for order in moved.flatten(0, 1).tolist()}
    assert len(orders) == 100
    assert torch.equal(permute(attention, batch, torch.tensor([7]))[:, 0], moved[:, 7])


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


@pytest.mark.parametrize("permutations", [1, 10, 11])
def test_median_equals_a_loop(permutations):
    batch, network = toy_batch(), toy_network()
    with torch.no_grad():
        output = network(batch)
    numbers = torch.arange(permutations) + 3 * permutations
    for row in (0, 2, 3):
        changes = []
        for number in numbers:
            moved = permute(output.attention, batch, number[None])[:, 0]
            p = network.classify(output.values, moved, batch).softmax(-1)[row]
            changes.append((p - output.logits.softmax(-1)[row]).abs().sum().item() / 2)
        expected = torch.tensor(changes).quantile(0.5)
        found = permutation_tvd(network, output, batch, permutations, 3)[row]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_does_not_depend_on_padding_or_neighbours_and_needs_two_tokens():
    batch, network = toy_batch(special=True, pad_to=20), toy_network()
    together = permutation_tvd(network, network(batch), batch)
    assert together.isnan().tolist() == [False, True, False, False]
    for row in (0, 2, 3):
        single = alone(batch, row)
        separate = permutation_tvd(network, network(single), single)
        torch.testing.assert_close(together[row], separate[0], atol=1e-5, rtol=0)


def test_no_more_permutations_are_held_than_the_budget_allows(monkeypatch):
    batch, network = toy_batch(), toy_network()
    with torch.no_grad():
        output = network(batch)
    expected = permutation_tvd(network, output, batch)
    sizes, plain = [], network.classify_many
    monkeypatch.setattr(network, "classify_many", lambda v, a, b: sizes.append(a.numel()) or plain(v, a, b))
    found = permutation_tvd(network, output, batch, max_tokens=200)
    assert max(sizes) <= 200
    assert sum(sizes) == 100 * batch.valid.numel()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0, equal_nan=True)


def test_no_permutation_is_the_users_mistake():
    batch, network = toy_batch(), toy_network()
    with pytest.raises(InputError, match="permutations of at least 1, not 0"):
        permutation_tvd(network, network(batch), batch, permutations=0)


@pytest.mark.parametrize("solver", [None, EdgeSolver(0.2), PublishedSolver(2, 5)])
def test_is_the_divergence_that_the_solver_finds(solver):
    batch, network = toy_batch(special=True, pad_to=15), toy_network()
    with torch.no_grad():
        output = network(batch)
    expected = (solver or EdgeSolver()).solve(network, output, batch).jsd
    found = adversarial_jsd(network, output, batch, solver, max_tokens=100)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, equal_nan=True)
    assert found.isnan().tolist() == [False, True, False, False]
