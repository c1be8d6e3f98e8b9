"""What holds for every search for adversarial attention."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attn.errors import InputError
from lightning_attn.metrics.adversarial import EdgeSolver, PublishedSolver
from lightning_attn.ops.divergence import jensen_shannon, total_variation
from lightning_attn.types import AttentionOutput
from tests.helpers.toy_pairs import paired, pairs
from tests.helpers.toys import CLASSIFIERS, alone, toy_batch, toy_mlp

SOLVERS = {"ours": EdgeSolver(), "published": PublishedSolver(adversaries=2, steps=10)}


def check(found, network, output, batch, epsilon=0.05):
    """The figures are those of the weights, and the weights are what was asked for."""
    weights, attention = found.attention, output.attention
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), attention.sum(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(weights[~batch.inner], attention[~batch.inner], atol=0, rtol=0)
    schema = network.schema
    with torch.no_grad():
        p = schema.probabilities(network.classify(output.values, weights, batch))
    change = total_variation(p, schema.probabilities(output.logits), schema.multi_label)
    assert (change <= epsilon + 1e-5).all()
    undefined = batch.inner.sum(-1) < 2
    assert torch.equal(found.jsd.isnan(), undefined)
    assert torch.equal(found.change.isnan(), undefined)
    torch.testing.assert_close(found.change[~undefined], change[~undefined], atol=1e-5, rtol=0)
    divergence = jensen_shannon(weights, attention).clamp(min=0)
    torch.testing.assert_close(found.jsd[~undefined], divergence[~undefined], atol=1e-5, rtol=0)
    assert (divergence <= math.log(2)).all()
    torch.testing.assert_close(weights[undefined], attention[undefined], atol=0, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(sorted(CLASSIFIERS)),
    classes=st.sampled_from([2, 3, 5]),
    multi_label=st.booleans(),
    special=st.booleans(),
    attended=st.booleans(),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
@settings(max_examples=15, deadline=None)
def test_what_is_found_keeps_the_output(solver, seed, kind, classes, multi_label, special, attended, lengths):
    network = toy_mlp(kind, classes, multi_label, seed, attended)
    batch = toy_batch(lengths, seed, special, classes=classes, multi_label=multi_label, pad_to=10)
    with torch.no_grad():
        output = network(batch)
    check(solver.solve(network, output, batch), network, output, batch)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize(("kind", "classes"), [("linear", 2), ("mlp", 2), ("linear", 4), ("own", 3)])
def test_an_example_gives_the_same_alone_padded_and_in_parts(solver, kind, classes):
    network, batch = toy_mlp(kind, classes), toy_batch((7, 1, 12, 4, 9), special=True, pad_to=15, classes=classes)
    with torch.no_grad():
        output = network(batch)
        together, parts = solver.solve(network, output, batch), solver.solve(network, output, batch, max_tokens=1)
        for row in range(len(batch)):
            one = alone(batch, row)
            single = solver.solve(network, network(one), one)
            for other in (parts.jsd[row], single.jsd[0]):
                torch.testing.assert_close(together.jsd[row], other, atol=1e-4, rtol=0, equal_nan=True)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_no_more_candidates_are_held_than_the_budget_allows(solver, monkeypatch):
    network, batch = toy_mlp("linear", 3), toy_batch((20,) * 12, classes=3)
    with torch.no_grad():
        output = network(batch)
    sizes, plain = [], network.classify_many
    monkeypatch.setattr(network, "classify_many", lambda v, a, b: sizes.append((len(a), a.numel())) or plain(v, a, b))
    solver.solve(network, output, batch, max_tokens=1500)
    assert all(count == 1 or size <= 1500 for count, size in sizes)
    assert any(count > 1 for count, _ in sizes)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_works_in_lightnings_hooks_and_leaves_no_trace(solver, mode):
    network, batch = toy_mlp("mlp", 3), toy_batch(classes=3)
    with torch.no_grad():
        expected = solver.solve(network, network(batch), batch)
        output = network(batch)
    network.train()
    with mode():
        found = solver.solve(network, output, batch)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.testing.assert_close(found.jsd.clone(), expected.jsd, equal_nan=True)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_pairs_are_searched_with_their_query(solver):
    network, batch = paired("bilstm"), pairs()
    with torch.no_grad():
        output = network(batch)
    check(solver.solve(network, output, batch), network, output, batch)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_an_empty_batch_gives_nothing(solver):
    network, batch = toy_mlp("linear", 3), toy_batch()
    with torch.no_grad():
        output = network(batch)
    nothing = AttentionOutput(**{name: value[:0] for name, value in vars(output).items() if value is not None})
    assert solver.solve(network, nothing, batch.select(torch.arange(0))).jsd.shape == (0,)


@pytest.mark.parametrize("solver", [EdgeSolver, PublishedSolver])
@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.0])
def test_an_epsilon_out_of_range_is_the_users_mistake(solver, epsilon):
    with pytest.raises(InputError, match=rf"{solver.__name__} needs an epsilon between 0 and 1, not {epsilon}"):
        solver(epsilon=epsilon)
