from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.encoders import TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.experiments import agreement
from lightning_attn.experiments.agreement import top_overlap
from lightning_attn.perturbation.perturbations import Replace
from lightning_attn.perturbation.sweep import output_change, probabilities
from lightning_attn.perturbation.variants import leave_one_out
from tests.helpers.toy_pairs import paired, pairs
from tests.helpers.toys import alone, toy_batch, toy_network

LENGTHS = (9, 1, 14, 6)


def rankings(network, batch, attention_fixed=True, perturbation=None):
    """Attention, gradient x embedding and leave-one-out of each position, ``(B, L)``."""
    found = embedding_gradient(network, batch, attention_fixed=attention_fixed)
    gradient = (found.gradient * found.embeddings).sum(-1).abs()
    perturbed = probabilities(network, batch, leave_one_out(batch), perturbation)
    loo = output_change(network.schema.probabilities(found.output.logits), perturbed)
    return found.output.attention, gradient, loo


@pytest.mark.parametrize("attention_fixed", [True, False])
@pytest.mark.parametrize("perturbation", [None, Replace()])
@pytest.mark.parametrize("multi_label", [False, True])
def test_taus_and_p_values_are_scipys(attention_fixed, perturbation, multi_label):
    network = toy_network(classes=3, multi_label=multi_label, sharpness=1.5)
    batch = toy_batch(LENGTHS, classes=3, multi_label=multi_label, special=True)
    found = agreement(network, batch, attention_fixed=attention_fixed, perturbation=perturbation)
    sides = dict(zip("agl", rankings(network, batch, attention_fixed, perturbation), strict=True))
    for name, (x, y) in {"gradient": "ag", "loo": "al", "gradient_loo": "gl"}.items():
        for row in (0, 2, 3):
            inner = batch.inner[row]
            expected = kendalltau(sides[x][row, inner].numpy(), sides[y][row, inner].numpy())
            assert getattr(found, name)[row].item() == pytest.approx(expected.statistic, abs=1e-9)
            assert getattr(found, name + "_p")[row].item() == pytest.approx(expected.pvalue, abs=1e-9)


def test_the_path_through_the_scorer_counts_where_the_attention_is_not_fixed():
    network, batch = toy_network(), toy_batch((9, 14, 6))
    fixed, free = (agreement(network, batch, attention_fixed=fixed) for fixed in (True, False))
    assert not torch.equal(fixed.gradient, free.gradient)
    assert torch.equal(fixed.loo, free.loo)


@pytest.mark.parametrize("top_k", [1, 5, 100])
def test_top_overlap_is_that_of_sets(top_k):
    network, batch = toy_network(), toy_batch(LENGTHS, special=True)
    found = agreement(network, batch, top_k=top_k)
    attention, gradient, loo = rankings(network, batch)
    for name, (x, y) in {
        "gradient_top": (attention, gradient),
        "loo_top": (attention, loo),
        "gradient_loo_top": (gradient, loo),
    }.items():
        values = getattr(found, name)
        assert values.isnan().tolist() == [False, True, False, False]
        for row in (0, 2, 3):
            inner = batch.inner[row]
            k = min(top_k, int(inner.sum()) - 1)
            best = [set(np.argsort(-side[row, inner].numpy(), kind="stable")[:k].tolist()) for side in (x, y)]
            assert values[row].item() == pytest.approx(len(best[0] & best[1]) / k)


def test_ties_rank_by_position():
    batch = toy_batch((5,))
    x, y = torch.tensor([[1.0, 1, 1, 1, 1]]), torch.tensor([[0.0, 3, 0, 2, 1]])
    assert top_overlap(x, y, batch, 2).item() == 0.5  # positions 0 and 1, and 1 and 3
    assert top_overlap(x, x, batch, 2).item() == 1.0


def test_constant_attention_has_no_tau_and_is_no_mistake():
    network = toy_network(encoder=TokenMLP(6, 5))
    with torch.no_grad():
        for parameter in network.attention.parameters():
            parameter.zero_()
    found = agreement(network, toy_batch((9, 6)))
    for name in ("gradient", "gradient_p", "loo", "loo_p", "gradient_without_attention"):
        assert getattr(found, name).isnan().all(), name
    for name in ("gradient_loo", "gradient_loo_p", "gradient_top", "loo_top"):
        assert getattr(found, name).isfinite().all(), name


def test_without_attention_is_the_gradient_that_the_weight_is_no_factor_of():
    """With local values: abs of dp/dc (dv_i/de_i e_i), as a derivative along e."""
    network, batch = toy_network(encoder=TokenMLP(6, 5)), toy_batch(LENGTHS)
    found = agreement(network, batch)
    with torch.no_grad():
        output = network(batch)
    embeddings = network.embed(batch).detach()
    _, pushed = torch.autograd.functional.jvp(lambda e: network.encode(e, batch)[1], embeddings, embeddings)
    pooled = torch.einsum("bl,blh->bh", output.attention, output.values).requires_grad_()
    p = network.head(pooled).softmax(-1)
    (slope,) = torch.autograd.grad(p.amax(dim=-1).sum(), pooled)
    expected = torch.einsum("bh,blh->bl", slope, pushed).abs()
    assert found.gradient_without_attention.isnan().tolist() == [False, True, False, False]
    for row in (0, 2, 3):
        inner = batch.inner[row]
        tau = kendalltau(output.attention[row, inner].numpy(), expected[row, inner].detach().numpy()).statistic
        assert found.gradient_without_attention[row].item() == pytest.approx(tau, abs=1e-9)
    assert found.gradient.nanmean() > found.gradient_without_attention.nanmean()


def test_a_weight_that_underflows_is_left_out_of_the_control():
    network, batch = toy_network(encoder=TokenMLP(6, 5)), toy_batch((6,))
    batch.inputs[0] = torch.arange(2, 8)
    network.attention.temperature = 0.0008
    weights = network(batch).attention[0]
    assert (weights == 0).any()
    assert (weights > 0).sum() > 1
    found = agreement(network, batch)
    assert found.gradient_without_attention.isfinite().all()


@pytest.mark.parametrize("encoder", [None, TokenMLP(6, 5)])
def test_an_example_gives_the_same_alone_padded_and_in_parts(encoder):
    network, batch = toy_network(encoder=encoder), toy_batch(LENGTHS, special=True, pad_to=16)
    batch.inputs[2, 7:12] = batch.inputs[2, 1:6]  # repeated words: ties of a network without context
    together, parts = agreement(network, batch), agreement(network, batch, max_tokens=20)
    for name, values in vars(together).items():
        torch.testing.assert_close(getattr(parts, name), values, equal_nan=True, msg=name)
    for row in range(len(batch)):
        single = agreement(network, alone(batch, row))
        for name, values in vars(together).items():
            torch.testing.assert_close(getattr(single, name)[0], values[row], equal_nan=True, msg=name)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_works_in_lightnings_hooks_and_with_pairs(mode):
    network, batch = paired("bilstm"), pairs()
    expected = agreement(network, batch)
    network.train()
    with mode():
        found = agreement(network, batch)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, values in vars(expected).items():
        torch.testing.assert_close(getattr(found, name).clone(), values, equal_nan=True, msg=name)


def test_no_positions_to_compare_are_the_users_mistake():
    with pytest.raises(InputError, match="top_k of at least 1, not 0"):
        agreement(toy_network(), toy_batch(), top_k=0)
    with pytest.raises(InputError, match=r"max_tokens.*at least 1, not -1"):
        agreement(toy_network(), toy_batch(), max_tokens=-1)
