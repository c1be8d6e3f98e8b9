from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.encoders import CNN, TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.metrics import DEFAULT_MEASURES, MEASURES, Settings, measure
from lightning_attn.perturbation.perturbations import Replace
from lightning_attn.types import Batch
from tests.helpers.tiny_models import toy_transformer
from tests.helpers.toy_bags import toy_bag_network, toy_bags
from tests.helpers.toys import alone, toy_batch, toy_network

ALL = tuple(MEASURES)
QUICK = Settings(permutations=20)


def classes(network, ids: list[int]) -> torch.Tensor:
    """Class probabilities of a list of token ids."""
    one = Batch(
        inputs=torch.tensor([ids]),
        valid=torch.ones(1, len(ids), dtype=torch.bool),
        special=torch.zeros(1, len(ids), dtype=torch.bool),
        target=torch.tensor([0]),
        index=torch.tensor([0]),
    )
    with torch.no_grad():
        return network(one).logits.softmax(-1)[0]


@pytest.mark.parametrize("replace", [False, True])
def test_faithfulness_equals_a_loop_over_texts(replace):
    batch, network = toy_batch(lengths=(9, 14, 3), classes=3), toy_network(classes=3)
    found, output = measure(network, batch, settings=Settings(perturbation=Replace() if replace else None))
    gradient = embedding_gradient(network, batch)
    product = (gradient.gradient * gradient.embeddings).sum(-1).abs()
    for row, n in enumerate((9, 14, 3)):
        ids = batch.inputs[row, :n].tolist()
        attention = output.attention[row, :n].numpy()
        order = np.argsort(-attention, kind="stable").tolist()
        full = classes(network, ids)
        c = int(full.argmax())

        def without(removed, ids=ids):
            if replace:
                return classes(network, [1 if i in removed else token for i, token in enumerate(ids)])
            return classes(network, [token for i, token in enumerate(ids) if i not in removed])

        budgets = [min(n - 1, max(1, math.ceil(f * n - 1e-9))) for f in (0.01, 0.05, 0.1, 0.2, 0.5)]
        ninths = [min(n - 1, round(j / 9 * n)) for j in range(1, 10)]
        curve = [float(without(order[:k])[c]) for k in ninths]
        loo = [float((full - without([i])).abs().mean()) for i in range(n)]
        tau_loo, tau_gradient = kendalltau(attention, loo), kendalltau(attention, product[row, :n].numpy())
        expected = {
            "comprehensiveness": np.mean([float(full[c] - without(order[:k])[c]) for k in budgets]),
            "sufficiency": np.mean([float(full[c] - without(order[k:])[c]) for k in budgets]),
            "aopc": np.mean([float(full[c]) - p for p in curve]),
            "log_odds": np.mean([math.log(p / float(full[c])) for p in curve]),
            "kendall_loo": tau_loo.statistic,
            "kendall_loo_significant": float(tau_loo.pvalue <= 0.05),
            "kendall_gradient": tau_gradient.statistic,
            "kendall_gradient_significant": float(tau_gradient.pvalue <= 0.05),
        }
        for name, value in expected.items():
            assert found["faithfulness/" + name][row].item() == pytest.approx(value, abs=1e-5), name


def test_flips_equal_a_loop_over_texts():
    # a network that changes its mind
    batch, network = toy_batch(lengths=(9, 30, 3, 70), classes=6), toy_network(seed=2, classes=6)
    names = ["faithfulness/flip_fraction", "faithfulness/flip_first"]
    found, output = measure(network, batch, names)
    flipped = 0
    for row, n in enumerate((9, 30, 3, 70)):
        ids = batch.inputs[row, :n].tolist()
        order = np.argsort(-output.attention[row, :n].numpy(), kind="stable").tolist()
        c = int(classes(network, ids).argmax())
        counts = sorted({1, *(min(n - 1, math.floor(j * n / 50 + 0.5)) for j in range(1, 51))} - {0})
        changed = []
        for k in counts:
            left = classes(network, [token for i, token in enumerate(ids) if i not in order[:k]])
            changed.append(int(left.argmax()) != c)
        first = next((k for k, change in zip(counts, changed, strict=True) if change), n)
        flipped += first < n
        assert found["faithfulness/flip_fraction"][row].item() == pytest.approx(first / n)
        assert found["faithfulness/flip_first"][row].item() == changed[0]
    assert flipped >= 2


@pytest.mark.parametrize("encoder", [None, TokenMLP(6, 5), CNN(6, 3, (1, 3))])
def test_an_example_measures_the_same_alone_and_in_a_batch(encoder):
    batch = toy_batch(lengths=(7, 1, 12, 4, 3), special=True, evidence=True, pad_to=16)
    network = toy_network(encoder=encoder)
    together, _ = measure(network, batch, ALL, QUICK)
    for row in range(len(batch)):
        separate, _ = measure(network, alone(batch, row), ALL, QUICK)
        for name in ALL:
            tolerance = 1e-3 if "adversarial" in name else 1e-5
            assert together[name][row].item() == pytest.approx(separate[name][0].item(), abs=tolerance, nan_ok=True), (
                name
            )


def test_repeated_words_of_a_network_without_context_are_ties_in_any_batch():
    network = toy_network(encoder=TokenMLP(6, 5))
    batch = toy_batch(lengths=(12, 12, 12))
    batch.inputs[:, 6:] = batch.inputs[:, :6]
    settings = Settings(permutations=5)
    together, _ = measure(network, batch, settings=settings)
    for rows in ([0], [1, 2], [2, 1, 0]):
        part, _ = measure(network, batch.select(torch.tensor(rows)), settings=settings)
        for name in ("kendall_loo", "kendall_gradient", "kendall_loo_significant"):
            assert torch.equal(part["faithfulness/" + name], together["faithfulness/" + name][rows])


def test_texts_of_one_token_are_undefined_for_faithfulness():
    found, _ = measure(toy_network(), toy_batch(lengths=(1, 5)), ALL, QUICK)
    for name, values in found.items():
        if name.startswith("faithfulness/"):
            assert values[0].isnan(), name
            assert values[1].isfinite(), name
        if name.startswith("attention/"):
            assert values.isfinite().all(), name
        if name.startswith("plausibility/"):
            assert values.isnan().all(), name  # no evidence


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_in_lightnings_hooks_and_in_training_mode(mode):
    network = toy_network()
    expected, _ = measure(network, toy_batch(special=True), ALL, QUICK)
    network.train()
    with mode():
        found, _ = measure(network, toy_batch(special=True), ALL, QUICK)
    assert network.training
    for name in ALL:
        torch.testing.assert_close(found[name].clone(), expected[name], atol=1e-5, rtol=0, equal_nan=True, msg=name)


def test_a_multi_label_network_is_measured_too():
    batch = toy_batch(lengths=(7, 5), classes=3, multi_label=True)
    found, _ = measure(toy_network(seed=3, classes=3, multi_label=True), batch, ALL, QUICK)
    for name, values in found.items():
        assert values.isfinite().all() or name.startswith("plausibility/"), name


def test_only_what_is_asked_for_is_run():
    batch, network = toy_batch(), toy_network()
    rows = []
    network.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    measure(network, batch, ["attention/entropy"])
    assert rows == [4]
    rows.clear()
    measure(network, batch, ["faithfulness/kendall_gradient", "attention/entropy"])
    assert rows == [4]
    rows.clear()
    measure(network, batch, DEFAULT_MEASURES)
    # All removals of one token are shared by leave-one-out and the smallest budgets.
    assert sum(rows) < 4 + 7 + 1 + 12 + 4 + 3 * (2 * 5 + 9)


def test_an_unknown_measure_is_answered_with_those_that_exist():
    with pytest.raises(InputError, match=r"no measure 'faithfulness/tau'.*faithfulness/kendall_loo"):
        measure(toy_network(), toy_batch(), ["faithfulness/tau"])


@pytest.mark.parametrize(
    ("network", "batch"),
    [(toy_network(), toy_batch()), (toy_bag_network("class"), toy_bags()), (toy_transformer(), toy_batch())],
    ids=["pooled", "class", "bert"],
)
def test_the_output_is_the_same_whatever_is_measured(network, batch):
    _, expected = measure(network, batch, ["attention/entropy"])
    _, output = measure(network, batch, ["attention/entropy", "faithfulness/kendall_gradient"])
    for field in dataclasses.fields(expected):
        own, theirs = getattr(output, field.name), getattr(expected, field.name)
        assert (own is None) == (theirs is None), field.name
        if own is not None:
            torch.testing.assert_close(own, theirs)
            assert not own.requires_grad
    assert expected.keys is not None
    assert expected.embeddings is not None
