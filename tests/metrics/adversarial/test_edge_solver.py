"""`EdgeSolver` against closed forms, a grid over the simplex, every edge, and the published search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial.distance import jensenshannon

from lightning_attn.encoders import TokenMLP
from lightning_attn.metrics.adversarial import EdgeSolver, PublishedSolver
from lightning_attn.networks import PooledNetwork
from lightning_attn.ops.divergence import total_variation
from lightning_attn.types import AttentionOutput, DataSchema
from tests.helpers.toy_pairs import paired, pairs
from tests.helpers.toys import VOCABULARY, toy_batch, toy_mlp


def divergence(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Of weights ``(..., L)`` from others ``(L,)``, by scipy."""
    return jensenshannon(b, np.broadcast_to(a, b.shape), axis=-1) ** 2


def output_of(network, batch, attention=None, values=None):
    """What the network computes, with other values or weights if they are given."""
    with torch.no_grad():
        output = network(batch)
        output.values = output.values if values is None else values
        output.attention = output.attention if attention is None else attention
        output.logits = network.classify(output.values, output.attention, batch)
    return output


def change_of(network, output: AttentionOutput, batch, weights: np.ndarray) -> np.ndarray:
    """Output change of the first example under many weights ``(V, L)``."""
    with torch.no_grad():
        drawn = torch.tensor(weights, dtype=torch.float32)
        many = batch.select(torch.zeros(len(drawn), dtype=torch.int64))
        logits = network.classify(output.values[:1].expand(len(drawn), -1, -1), drawn, many)
        p, q = network.schema.probabilities(logits), network.schema.probabilities(output.logits[:1])
        return total_variation(p, q, network.schema.multi_label).numpy()


def simplex(positions: int, steps: int) -> np.ndarray:
    """A grid over all distributions on a few positions."""
    grid = [point for point in itertools.product(range(steps + 1), repeat=positions - 1) if sum(point) <= steps]
    first = np.array(grid, dtype=float).reshape(len(grid), positions - 1) / steps
    return np.concatenate([first, 1 - first.sum(axis=1, keepdims=True)], axis=1)


def grid_maximum(network, output: AttentionOutput, batch) -> float:
    """The largest divergence that a grid over the simplex meets among weights that keep the output."""
    length = output.attention.shape[1]
    grid = simplex(length, 400 if length == 2 else 60)
    kept = change_of(network, output, batch, grid) <= 0.05
    return float(divergence(grid, output.attention[0].double().numpy())[kept].max(initial=0.0))


def shortfall_of(seed: int, kind: str, length: int, classes: int = 2) -> float:
    """How much more a grid over the simplex finds than the solver; below 0 if less."""
    network, batch = toy_mlp(kind, classes, seed=seed), toy_batch((length,), seed, classes=classes)
    output = output_of(network, batch)
    return grid_maximum(network, output, batch) - EdgeSolver().solve(network, output, batch).jsd.item()


@given(seed=st.integers(0, 10_000), length=st.sampled_from([2, 3]))
@settings(max_examples=15, deadline=None)
def test_of_two_classes_and_a_linear_head_no_grid_over_the_simplex_finds_more(seed, length):
    assert shortfall_of(seed, "linear", length) <= 1e-3


@pytest.mark.parametrize("length", [2, 3])
def test_of_two_classes_and_a_curved_head_a_grid_rarely_finds_more(length):
    """Log-odds that turn on the way along an edge hide points from the solver: with 1 in 50 heads drawn at random."""
    shortfall = np.array([shortfall_of(seed, "mlp", length) for seed in range(100)])
    assert (shortfall <= 0.02).mean() >= 0.95
    assert shortfall.clip(min=0).mean() < 0.01


@pytest.mark.parametrize(("kind", "classes"), [("linear", 3), ("mlp", 3), ("own", 2), ("own", 3)])
def test_of_any_head_a_grid_finds_hardly_more(kind, classes):
    shortfall = [max(0.0, shortfall_of(seed, kind, 3, classes)) for seed in range(6)]
    assert max(shortfall) < 0.05
    assert np.mean(shortfall) < 0.01


@pytest.mark.parametrize("seed", range(6))
def test_under_a_linear_head_the_maximum_itself_is_found(seed):
    """Every corner and every crossing of every edge, one by one."""
    length = 9
    network, batch = toy_mlp("linear", 2, seed=seed), toy_batch((length,), seed)
    output = output_of(network, batch)
    attention = output.attention[0].double().numpy()
    corners = np.eye(length)
    shifts = []
    with torch.no_grad():
        for corner in corners:
            logits = network.classify(output.values, torch.tensor(corner[None], dtype=torch.float32), batch)
            shifts.append(float(logits[0, 0] - logits[0, 1]))
    p = float(output.logits[0].softmax(-1)[0])
    most = 0.0
    for i, j in itertools.product(range(length), repeat=2):

        def moved(t, i=i, j=j):
            return 1 / (1 + math.exp(-(t * shifts[i] + (1 - t) * shifts[j]))) - p

        ends = [0.0, 1.0]
        ends += [
            brentq(lambda t, side=side: moved(t) - side, 0.0, 1.0, xtol=1e-14)
            for side in (-0.05, 0.05)
            if (moved(0.0) - side) * (moved(1.0) - side) < 0
        ]
        for t in ends:
            if abs(moved(t)) <= 0.05 + 1e-9:
                most = max(most, divergence(t * corners[i] + (1 - t) * corners[j], attention))
    found = EdgeSolver().solve(network, output, batch).jsd.item()
    assert most > 0.1
    assert found == pytest.approx(most, abs=5e-4)


def two_classes(weight: float = 0.1) -> PooledNetwork:
    """Log-odds are 2 * weight * the first number of the pooled value."""
    torch.manual_seed(0)
    network = PooledNetwork(TokenMLP(4, 3)).build(DataSchema(num_classes=2, vocabulary_size=VOCABULARY)).eval()
    with torch.no_grad():
        network.head.layers.bias.zero_()
        network.head.layers.weight.zero_()
        network.head.layers.weight[0, 0], network.head.layers.weight[1, 0] = weight, -weight
    return network


def test_equal_values_allow_the_farthest_corner():
    network, batch = two_classes(), toy_batch((5,))
    attention = torch.tensor([[0.3, 0.1, 0.25, 0.15, 0.2]])
    output = output_of(network, batch, attention, torch.ones(1, 5, 3))
    found = EdgeSolver().solve(network, output, batch)
    assert found.attention[0].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert found.jsd.item() == pytest.approx(divergence(np.eye(5)[1], attention[0].numpy()), abs=1e-6)
    assert found.change.item() == 0.0


@pytest.mark.parametrize("epsilon", [0.01, 0.05, 0.3])
def test_two_positions_that_decide_allow_what_epsilon_says(epsilon):
    network, batch = two_classes(), toy_batch((2,))
    values = torch.zeros(1, 2, 3)
    values[0, 0, 0], values[0, 1, 0] = 10.0, -10.0  # log-odds 2 and -2
    output = output_of(network, batch, torch.tensor([[0.5, 0.5]]), values)
    found = EdgeSolver(epsilon).solve(network, output, batch)
    # p = 0.5 + epsilon at log-odds 4 t - 2.
    t = (math.log((0.5 + epsilon) / (0.5 - epsilon)) + 2) / 4
    assert found.jsd.item() == pytest.approx(divergence(np.array([t, 1 - t]), np.array([0.5, 0.5])), rel=5e-3)
    assert found.change.item() == pytest.approx(epsilon, rel=2e-3)


def test_mass_on_special_positions_stays_and_the_rest_moves():
    network = two_classes()
    batch = toy_batch((5,), special=True)
    attention = torch.tensor([[0.4, 0.2, 0.05, 0.25, 0.1]])
    output = output_of(network, batch, attention, torch.ones(1, 5, 3))
    found = EdgeSolver().solve(network, output, batch).attention[0]
    torch.testing.assert_close(found, torch.tensor([0.4, 0.0, 0.5, 0.0, 0.1]))


def test_positions_beyond_those_searched_on_edges_are_corners_all_the_same():
    """The only position that keeps the output is the one with most attention but one."""
    network, length = two_classes(1.0), 200
    batch = toy_batch((length,))
    values = torch.full((1, length, 3), 5.0)
    values[0, -2] = -3.0
    attention = torch.arange(1.0, length + 1)[None]
    attention[0, -1] = 0.0
    attention = attention / attention.sum()
    values[0, -2, 0] = (attention[0] * values[0, :, 0]).sum() - attention[0, -2] * values[0, -2, 0]
    output = output_of(network, batch, attention, values)
    found = EdgeSolver().solve(network, output, batch)
    assert found.jsd.item() > 0.69


@pytest.mark.parametrize(("kind", "classes"), [("linear", 2), ("mlp", 2), ("linear", 3), ("mlp", 5), ("own", 3)])
def test_finds_at_least_what_the_published_search_finds(kind, classes):
    network = toy_mlp(kind, classes, seed=1)
    batch = toy_batch([9, 14, 5, 11] * 2, seed=1, classes=classes)
    output = output_of(network, batch)
    ours, published = (
        solver.solve(network, output, batch).jsd for solver in (EdgeSolver(), PublishedSolver(steps=150))
    )
    assert ours.mean() >= published.mean()
    assert (ours >= published - 0.05).all()


def test_more_classes_than_an_edge_can_serve_take_more_positions():
    """Three positions, each sure of a class of its own, and an output that is unsure: weights are all but unique."""
    torch.manual_seed(0)
    network = PooledNetwork(TokenMLP(4, 3)).build(DataSchema(num_classes=3, vocabulary_size=VOCABULARY)).eval()
    with torch.no_grad():
        network.head.layers.bias.zero_()
        network.head.layers.weight.copy_(torch.eye(3))
    batch = toy_batch((6,), classes=3)
    values = 9 * torch.eye(3).repeat(2, 1)[None]  # positions i and i + 3 say the same
    attention = torch.tensor([[0.3, 0.3, 0.3, 0.03, 0.03, 0.04]])
    output = output_of(network, batch, attention, values)
    found = EdgeSolver().solve(network, output, batch)
    weights = found.attention[0]
    assert weights[3:].sum() > 0.99
    assert (weights[3:] > 0.3).all()
    assert found.jsd.item() > 0.4


def test_more_room_allows_more():
    network = toy_mlp("linear", 3, seed=3)
    batch = toy_batch([8, 12, 5], seed=3, classes=3)
    output = output_of(network, batch)
    found = [EdgeSolver(epsilon).solve(network, output, batch).jsd for epsilon in (0.01, 0.05, 0.2, 0.9)]
    for less, more in itertools.pairwise(found):
        assert (more >= less - 0.02).all()


def test_pairs_find_more_than_the_published_search():
    network, batch = paired("bilstm"), pairs()
    output = output_of(network, batch)
    ours, published = (s.solve(network, output, batch).jsd for s in (EdgeSolver(), PublishedSolver(steps=60)))
    assert ours.nanmean() > published.nanmean()
