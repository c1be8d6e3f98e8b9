"""`UniformAttention` in networks with and without a query."""

from __future__ import annotations

import pytest
import torch

from lightning_attn.attention import UniformAttention
from lightning_attn.encoders import CNN, BiLSTM, Encoder, TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import AttentionNetwork, PairedNetwork, PooledNetwork
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
)
from tests.helpers.runs import tiny_data, trainer
from tests.helpers.toy_pairs import pairs
from tests.helpers.toys import alone, toy_batch

ENCODERS = {"bilstm": lambda: BiLSTM(8, 5), "cnn": lambda: CNN(8, 3), "average": lambda: TokenMLP(8, 7, values="local")}


def single(encoder: Encoder, attention: UniformAttention | None = None) -> PooledNetwork:
    torch.manual_seed(0)
    schema = DataSchema(num_classes=3, vocabulary_size=30)
    return PooledNetwork(encoder, attention or UniformAttention()).build(schema).eval()


def under_a_query(encoder: Encoder) -> PairedNetwork:
    torch.manual_seed(0)
    schema = DataSchema(num_classes=3, vocabulary_size=30, query_vocabulary_size=30)
    return PairedNetwork(encoder, TokenMLP(8, 4), UniformAttention()).build(schema).eval()


@pytest.fixture(params=ENCODERS)
def built(request: pytest.FixtureRequest) -> AttentionNetwork:
    return single(ENCODERS[request.param]())


@pytest.fixture
def batch() -> Batch:
    return toy_batch(lengths=[9, 4, 1, 6], seed=1)


@pytest.mark.parametrize("make", [single, under_a_query])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_position_counts_the_same(make, encoder: str) -> None:
    batch = pairs()
    output = make(ENCODERS[encoder]())(batch)
    expected = batch.inner / batch.inner.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(output.attention, expected)


def test_the_pooled_value_is_the_mean(batch: Batch) -> None:
    network = single(TokenMLP(8, 7))
    output = network(batch)
    for row in range(len(batch)):
        values = network(alone(batch, row)).values[0]
        torch.testing.assert_close(network.head(values.mean(dim=0)), output.logits[row])


def test_special_tokens_count_if_asked() -> None:
    batch = toy_batch(lengths=[5], special=True)
    without, with_them = (single(TokenMLP(8, 7), UniformAttention(flag))(batch).attention for flag in (False, True))
    torch.testing.assert_close(without, torch.tensor([[0, 1, 1, 1, 0]]) / 3)
    torch.testing.assert_close(with_them, torch.full((1, 5), 0.2))


@pytest.mark.parametrize("make", [single, under_a_query])
def test_it_has_no_parameters(make) -> None:
    assert not list(make(TokenMLP(8, 7)).attention.parameters())


@pytest.mark.parametrize("make", [single, under_a_query])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_shortcut_of_the_sweep_is_exact(make, encoder: str) -> None:
    network, batch = make(ENCODERS[encoder]()), pairs()
    found = probabilities(network, batch, leave_one_out(batch))
    # A hook may change what it sees, so there is no shortcut then.
    handle = network.encoder.register_forward_hook(lambda *_: None)
    expected = probabilities(network, batch, leave_one_out(batch))
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_network_trains_under_it(tmp_path) -> None:
    data = tiny_data()
    module = AttentionClassifier(PooledNetwork(TokenMLP(8, 6, values="local"), UniformAttention()))
    run = trainer(tmp_path, max_epochs=2)
    run.fit(module, data)
    assert run.callback_metrics["train/loss"] > 0


def test_random_pretraining_says_that_nothing_would_be_learned(tmp_path) -> None:
    data = tiny_data()
    network = PooledNetwork(TokenMLP(8, 6), UniformAttention())
    module = AttentionClassifier(network, RandomPretraining(epochs=1))
    with pytest.raises(InputError, match="UniformAttention has no parameters"):
        trainer(tmp_path, max_epochs=2).fit(module, data)
