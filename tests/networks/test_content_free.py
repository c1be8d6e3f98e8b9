"""The content-free network keeps the contract, and its head gets nothing but weights."""

import pytest
import torch
from torch.nn import functional as F

from lightning_attn.attention import AdditiveAttention
from lightning_attn.encoders import BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.mitigations import (
    Dirichlet,
    InstanceWeighting,
    RandomMixing,
    RandomPretraining,
    Shuffled,
    SoftmaxNormal,
    Uniform,
    UniformSubset,
)
from lightning_attn.networks import ContentFreeNetwork, PooledNetwork
from lightning_attn.types import DataSchema
from tests.helpers.default_tokens import SCHEMA, K, built, with_defaults
from tests.helpers.toys import alone


def test_it_keeps_the_contract() -> None:
    network, batch = built(), with_defaults()
    output = network(batch)
    torch.testing.assert_close(output.attention.sum(dim=-1), torch.ones(4))
    assert torch.equal(output.attention > 0, batch.special), "default tokens, all of them, and nothing else"
    torch.testing.assert_close(network(batch, attention=output.attention).logits, output.logits)
    torch.testing.assert_close(network(batch, embeddings=network.embed(batch)).logits, output.logits)
    torch.testing.assert_close(network.classify(output.values, output.attention, batch), output.logits)
    for row in range(len(batch)):
        single = network(alone(batch, row))
        torch.testing.assert_close(single.logits[0], output.logits[row], atol=1e-5, rtol=1e-5)


def test_the_head_sees_the_weights_and_nothing_of_the_text() -> None:
    network, batch = built(), with_defaults(lengths=(6, 6, 6), seed=1)
    output = network(batch)
    assert output.attention[0].sub(output.attention[1]).abs().max() > 1e-3, "the scorer reads the text"
    given = output.attention[:1].expand_as(output.attention)
    logits = network(batch, attention=given).logits
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


def test_logits_are_those_of_the_weighted_sum_of_the_default_vectors() -> None:
    network, batch = built(), with_defaults()
    output = network(batch)
    weights = output.attention[batch.special].view(4, K)
    torch.testing.assert_close(network.head(weights @ network.defaults.weight), output.logits)


@pytest.mark.parametrize(
    "distribution",
    [SoftmaxNormal(), Dirichlet(), UniformSubset(2), Uniform(), Shuffled()],
    ids=lambda d: type(d).__name__,
)
def test_random_attention_is_drawn_over_the_default_tokens(distribution) -> None:
    network, batch = built().train(), with_defaults()
    network.set_mitigation(RandomPretraining(distribution=distribution))
    output = network(batch)
    torch.testing.assert_close(output.attention.sum(dim=-1), torch.ones(4))
    assert (output.attention[~batch.special] == 0).all()
    assert not torch.equal(output.attention, output.learned)


def test_random_attention_of_a_layer_that_attends_special_tokens_reaches_them_too() -> None:
    torch.manual_seed(0)
    network = PooledNetwork(BiLSTM(8, 5), AdditiveAttention(6, attend_special=True)).build(SCHEMA).train()
    network.set_mitigation(RandomPretraining())
    batch = with_defaults()
    assert torch.equal(network(batch).attention > 0, batch.valid)


def test_every_mitigation_works_on_it() -> None:
    network, batch = built().train(), with_defaults()
    seen = network.attendable(batch)
    output = network(batch)
    mixed = RandomMixing(distribution=Uniform()).auxiliary_loss(output, seen, network)
    even = network.classify(output.values, batch.special / K, batch)
    torch.testing.assert_close(mixed, F.cross_entropy(even, batch.target))
    weighting = InstanceWeighting(warmup_steps=0)
    weighting.build(SCHEMA)
    # Weights come from the default tokens' attention alone: texts of other lengths with equal weights count alike.
    torch.manual_seed(0)
    long = with_defaults(lengths=(9, 3, 2, 11))
    moved = torch.zeros(long.valid.shape)
    moved[long.special] = output.learned[batch.special]
    torch.testing.assert_close(
        weighting._log_probability(moved.detach(), network.attendable(long), held_out=True),
        weighting._log_probability(output.learned.detach(), seen, held_out=True),
    )


def test_a_frozen_value_path_leaves_encoder_and_scorer() -> None:
    network = built()
    mitigation = RandomPretraining(epochs=1)
    network.set_mitigation(mitigation)
    assert mitigation.lr_scales(network, 0) == {}
    assert mitigation.lr_scales(network, 1) == {network.defaults: 0.0, network.head: 0.0}


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InputError, match="at least 2 default tokens, and these have 0"):
        ContentFreeNetwork().build(DataSchema(num_classes=2, vocabulary_size=9))
    with pytest.raises(InputError, match="leave attend_special out"):
        ContentFreeNetwork(attention=AdditiveAttention(attend_special=True))
