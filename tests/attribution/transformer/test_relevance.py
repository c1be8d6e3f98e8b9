from __future__ import annotations

import gc
import warnings
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_attn.attribution import METHODS, get
from lightning_attn.attribution.transformer import (
    ChosenHeads,
    FullLRP,
    MaskLRP,
    PartialLRP,
    ReleasedChosenHeads,
    ReleasedMaskLRP,
    TransAtt,
)
from lightning_attn.attribution.transformer.relevance import propagate, relevance_rules, weight_relevance
from lightning_attn.attribution.transformer.rules import Add, HeadRule, Linear, Product
from lightning_attn.errors import InputError
from lightning_attn.networks import TransformerNetwork
from lightning_attn.types import Batch
from tests.helpers import bert_reference as reference
from tests.helpers.tiny_models import KINDS, toy_transformer
from tests.helpers.toys import alone, toy_batch

ALL = [[0, 1], [0, 1]]
SOME = [[1], [0]]


@pytest.fixture(scope="module")
def networks() -> dict[str, TransformerNetwork]:
    return {kind: toy_transformer(kind, classes=3) for kind in KINDS}


@pytest.fixture(scope="module")
def shallow() -> TransformerNetwork:
    return toy_transformer("bert", classes=3, layers=1)


@pytest.fixture
def batch() -> Batch:
    return toy_batch([7, 3, 5], seed=2, special=True)


TARGET = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("chosen", [None, SOME, ALL, [[], [1]]])
@pytest.mark.parametrize("released", [False, True])
def test_relevance_is_that_of_the_slow_reference(
    networks: dict[str, TransformerNetwork], batch: Batch, chosen: list[list[int]] | None, released: bool
) -> None:
    network = networks["bert"]
    if chosen is None and released:
        chosen = ALL
    rule = None if chosen is None else (ReleasedChosenHeads if released else ChosenHeads)(chosen)
    found = propagate(network, batch, TARGET, rule)
    for row in range(len(batch)):
        length = int(batch.valid[row].sum())
        ids = batch.inputs[row, :length]
        maps, embedding = reference.bert_relevance(network.model, ids, int(TARGET[row]), chosen, released)
        for one, expected in zip(found.maps, maps, strict=True):
            torch.testing.assert_close(one[row, :, :length, :length], expected, atol=1e-5, rtol=1e-3)
            assert not one[row, :, length:].any()
            assert not one[row, :, :, length:].any()
        torch.testing.assert_close(found.embedding[row, :length], embedding, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_relevance_is_conserved(kind: str, networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    """The biases of every layer are left out by the rules, so that all of it arrives at the embeddings."""
    embedding = propagate(networks[kind], batch, TARGET).embedding
    torch.testing.assert_close(embedding.sum(dim=(1, 2)), torch.ones(3), atol=1e-3, rtol=0)
    assert not embedding[~batch.valid].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lowest", [0, 1, -1])
def test_maps_alone_are_those_of_the_whole_way_back(
    kind: str, lowest: int, networks: dict[str, TransformerNetwork], batch: Batch
) -> None:
    expected = propagate(networks[kind], batch, TARGET, ChosenHeads(SOME)).maps[lowest:]
    found = weight_relevance(networks[kind], batch, TARGET, ChosenHeads(SOME), lowest)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_relevance_of_embeddings_is_computed_in_double_precision(
    kind: str, networks: dict[str, TransformerNetwork], batch: Batch
) -> None:
    found = propagate(networks[kind], batch, TARGET)
    assert found.embedding.dtype == torch.float32
    exact = propagate(deepcopy(networks[kind]).double(), batch, TARGET)
    # The embeddings themselves are of single precision in the first.
    torch.testing.assert_close(found.embedding.double(), exact.embedding, atol=5e-4, rtol=1e-2)
    single = deepcopy(networks[kind])
    alike = [propagate(single, alone(batch, row), TARGET[row : row + 1]).embedding[0] for row in range(len(batch))]
    for row, one in enumerate(alike):
        torch.testing.assert_close(one, found.embedding[row, : len(one)], atol=0, rtol=1e-5)


def test_nothing_of_an_explanation_stays_in_memory(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    def alive() -> int:
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some objects warn when they are looked at
            return sum(isinstance(one, Tensor) for one in gc.get_objects())

    methods = [get(name) for name in METHODS if name != "input_gradient"] + [MaskLRP(SOME), ReleasedMaskLRP(SOME)]
    for method in methods:
        method.attribute(networks["bert"], batch, TARGET)
        before = alive()
        method.attribute(networks["bert"], batch, TARGET)
        assert alive() == before, type(method).__name__


def test_no_layer_below_the_asked_one_is_visited(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    visited = []

    class Watch(HeadRule):
        def kept(self, whole: Tensor, passed: Tensor) -> Tensor:
            visited.append(passed)
            return passed

    weight_relevance(networks["bert"], batch, TARGET, Watch(), lowest=-1)
    assert len(visited) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_choosing_all_is_no_selection(kind: str, networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    network = networks[kind]
    expected = TransAtt().attribute(network, batch, TARGET)
    assert torch.equal(MaskLRP(ALL).attribute(network, batch, TARGET), expected)
    assert not torch.allclose(MaskLRP(SOME).attribute(network, batch, TARGET), expected, atol=1e-6, rtol=1e-3)


def test_released_maps_are_twice_as_large_with_all_heads(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    whole = propagate(networks["bert"], batch, TARGET).maps
    released = propagate(networks["bert"], batch, TARGET, ReleasedChosenHeads(ALL)).maps
    for one, other in zip(whole, released, strict=True):
        torch.testing.assert_close(2 * one, other)


def test_in_a_model_of_one_layer_only_the_clean_selection_acts(shallow: TransformerNetwork, batch: Batch) -> None:
    released = [ReleasedMaskLRP([heads]).attribute(shallow, batch, TARGET) for heads in ([0], [1], [])]
    assert torch.equal(released[0], released[1])
    assert torch.equal(released[0], released[2])
    clean = [MaskLRP([heads]).attribute(shallow, batch, TARGET) for heads in ([0], [1], [])]
    assert not torch.allclose(clean[0], clean[1], atol=1e-7, rtol=1e-3)
    assert not clean[2].any()


def test_without_any_head_only_the_residual_path_is_left(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    found = propagate(networks["bert"], batch, TARGET, ChosenHeads([[], []]))
    assert not any(one.any() for one in found.maps)
    assert not found.embedding[:, 1:].any(), "without attention nothing comes from other positions"
    assert found.embedding[:, 0].any()


def test_renormalising_loses_nothing(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    rule = ChosenHeads(SOME, renormalise=True)
    kept = propagate(networks["bert"], batch, TARGET, rule).embedding.sum(dim=(1, 2))
    torch.testing.assert_close(kept, torch.ones(3), atol=2e-3, rtol=0)
    lost = propagate(networks["bert"], batch, TARGET, ChosenHeads(SOME)).embedding.sum(dim=(1, 2))
    assert (lost - 1).abs().min() > 5e-3


def test_transatt_is_that_of_the_slow_reference(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    network = networks["bert"]
    found = TransAtt().attribute(network, batch, TARGET)
    masked = MaskLRP(SOME).attribute(network, batch, TARGET)
    partial = PartialLRP().attribute(network, batch, TARGET)
    for row in range(len(batch)):
        length = int(batch.valid[row].sum())
        ids = batch.inputs[row, :length]
        _, gradients = reference.bert_gradients(network.model, ids, int(TARGET[row]))
        for scores, chosen in ((found, None), (masked, SOME)):
            maps, _ = reference.bert_relevance(network.model, ids, int(TARGET[row]), chosen)
            pairs = zip(gradients, maps, strict=True)
            expected = reference.multiplied([(gradient * one).clamp(min=0).mean(dim=0) for gradient, one in pairs])
            inner = batch.inner[row, :length]
            torch.testing.assert_close(scores[row, :length][inner], expected[inner], atol=1e-6, rtol=1e-3)
        maps, _ = reference.bert_relevance(network.model, ids, int(TARGET[row]))
        expected = maps[-1][:, 0].clamp(min=0).mean(dim=0)[inner]
        torch.testing.assert_close(partial[row, :length][inner], expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "method",
    [TransAtt(), MaskLRP(SOME), ReleasedMaskLRP(SOME), PartialLRP(), FullLRP()],
    ids=lambda m: type(m).__name__,
)
def test_scores_do_not_depend_on_the_batch(
    kind: str, method: Any, networks: dict[str, TransformerNetwork], batch: Batch
) -> None:
    together = method.attribute(networks[kind], batch, TARGET)
    assert not together[~batch.inner].any()
    for row in range(len(batch)):
        single = method.attribute(networks[kind], alone(batch, row), TARGET[row : row + 1])
        torch.testing.assert_close(together[row, : single.shape[1]], single[0], atol=1e-5, rtol=1e-3)
    assert together[batch.inner].abs().max() > 1e-4


def test_the_model_is_as_before_after_an_error(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    network = networks["albert"]  # the one whose activation is put together of several operations
    before = network(batch).logits

    def fail() -> None:
        with relevance_rules(network) as (ruled, _):
            ruled.run(network.embed(batch), batch)
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert torch.equal(network(batch).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert network.model.config._attn_implementation == "sdpa"
    leaf = torch.randn(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad((leaf + leaf.tanh()).sum(), leaf)
    torch.testing.assert_close(gradient, 2 - leaf.detach().tanh() ** 2)


def test_parameters_get_no_gradient(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    with torch.inference_mode():
        scores = TransAtt().attribute(networks["bert"], batch)
    assert not scores.requires_grad
    assert all(parameter.grad is None for parameter in networks["bert"].parameters())


def test_a_selection_of_another_model_is_refused(networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    with pytest.raises(InputError, match="for 3 layers, and the model has 2"):
        MaskLRP([[0], [1], [0]]).attribute(networks["bert"], batch)
    with pytest.raises(InputError, match=r"Layer 1 has attention heads \[0, 2\]"):
        MaskLRP([[0], [2, 0]]).attribute(networks["bert"], batch)


numbers = st.integers(0, 2**31)


def passed(function: Any, relevance: Tensor, *inputs: Tensor) -> list[Tensor]:
    leaves = [one.clone().requires_grad_() for one in inputs]
    wanted = leaves[:1] if function is Linear else leaves
    arguments = [*leaves, None] if function is Linear else leaves
    return list(torch.autograd.grad(function.apply(*arguments), wanted, relevance))


@settings(deadline=None, max_examples=30)
@given(numbers, st.integers(1, 9), st.integers(1, 7))
def test_the_linear_rule(seed: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    relevance = torch.randn(4, outputs, generator=generator)
    (found,) = passed(Linear, relevance, x, weight)
    # The reference divides by any positive sum, the rule takes those of rounding noise for none.
    products = (x[:, None] * weight).clamp(min=0).sum(dim=-1)
    noise = products < 1e-4 * (x[:, None] * weight).abs().sum(dim=-1)
    expected = reference.linears(x, weight, relevance.masked_fill(noise, 0.0))
    (found,) = passed(Linear, relevance.masked_fill(noise, 0.0), x, weight)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        found.sum(dim=-1), relevance.masked_fill(noise | (products == 0), 0).sum(dim=-1), atol=1e-3, rtol=1e-3
    )


@settings(deadline=None, max_examples=30)
@given(numbers)
def test_the_shares_of_a_sum_are_each_examples_own(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b, relevance = (torch.rand(3, 4, 5, generator=generator) + 0.1 for _ in range(3))
    relevance = relevance - 0.5
    to_a, to_b = passed(Add, relevance, a, b)
    for row in range(3):
        expected_a, expected_b = reference.added(a[row], b[row], relevance[row])
        torch.testing.assert_close(to_a[row], expected_a, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(to_b[row], expected_b, atol=1e-4, rtol=1e-3)


@settings(deadline=None, max_examples=30)
@given(numbers)
def test_half_of_a_product_goes_to_each_factor(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(4, 3, generator=generator) + 0.1, torch.rand(3, 5, generator=generator) + 0.1
    relevance = torch.randn(4, 5, generator=generator)
    to_x, to_y = passed(Product, relevance, x, y)
    expected_x, expected_y = reference.product(x, y, relevance)
    torch.testing.assert_close(to_x, expected_x / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(to_y, expected_y / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(to_x.sum() + to_y.sum(), relevance.sum(), atol=1e-4, rtol=1e-4)
