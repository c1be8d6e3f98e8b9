from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attn.encoders import TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.experiments import AttentionSource, Other, Random, Uniform, counterfactual
from lightning_attn.mitigations.random_attention import Dirichlet, Shuffled, SoftmaxNormal, UniformSubset
from lightning_attn.networks import PooledNetwork
from lightning_attn.types import DataSchema
from tests.helpers.toy_pairs import paired, pairs
from tests.helpers.toys import VOCABULARY, alone, toy_batch, toy_network

SOURCES = [Uniform(), Random(3), Other(toy_network(7, sharpness=5))]


class Learned(AttentionSource):
    """The weights as they are."""

    def weights(self, network, output, batch):
        """The learned ones."""
        return output.attention


@pytest.mark.parametrize(("classes", "multi_label"), [(2, False), (3, False), (3, True)])
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_equals_a_loop_over_examples(source, classes, multi_label):
    network = toy_network(1, classes, multi_label)
    batch = toy_batch((7, 1, 12, 4), 3, classes=classes, multi_label=multi_label)
    found = counterfactual(network, batch, source)
    for row in range(len(batch)):
        one = alone(batch, row)
        with torch.no_grad():
            output = network(one)
            logits = network.classify(output.values, source.weights(network, output, one), one)[0]
        p, q = (network.schema.probabilities(x) for x in (output.logits[0], logits))
        if multi_label:
            change, same = (p - q).abs().mean(), ((p > 0.5) == (q > 0.5)).all()
            right = [((x > 0.5) == one.target[0].bool()).all() for x in (q, p)]
        else:
            change, same = (p - q).abs().sum() / 2, p.argmax() == q.argmax()
            right = [x.argmax() == one.target[0] for x in (q, p)]
        assert found.correct[row].item() == float(right[0])
        assert found.correct_learned[row].item() == float(right[1])
        if row == 1:
            assert found.change[row].isnan()
            assert found.same_prediction[row].isnan()
        else:
            assert found.change[row].item() == pytest.approx(change.item(), abs=1e-5)
            assert found.same_prediction[row].item() == float(same)


def test_the_learned_weights_change_nothing():
    found = counterfactual(toy_network(), toy_batch((7, 4)), Learned())
    assert found.change.max() < 1e-6
    assert found.same_prediction.tolist() == [1.0, 1.0]
    assert torch.equal(found.correct, found.correct_learned)


@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    special=st.booleans(),
    attended=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_weights_are_a_distribution_and_special_tokens_keep_theirs(seed, lengths, special, attended):
    network, batch = toy_network(seed, attend_special=attended), toy_batch(lengths, seed, special, pad_to=10)
    with torch.no_grad():
        output = network(batch)
    for source in (Uniform(), Random(seed), Random(seed, Dirichlet(0.1)), Random(seed, UniformSubset(2))):
        weights = source.weights(network, output, batch)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(len(batch)), atol=1e-5, rtol=0)
        torch.testing.assert_close(weights[~batch.inner], output.attention[~batch.inner], atol=0, rtol=0)
    uniform = Uniform().weights(network, output, batch)
    for row, inner in enumerate(batch.inner):
        if inner.any():
            torch.testing.assert_close(uniform[row, inner], uniform[row, inner].mean().expand(int(inner.sum())))


def test_random_weights_belong_to_the_example():
    network, batch = toy_network(), toy_batch((7, 9, 12, 7), pad_to=14)
    with torch.no_grad():
        output = network(batch)
    state = torch.random.get_rng_state()
    drawn = Random(5).weights(network, output, batch)
    assert torch.equal(torch.random.get_rng_state(), state)
    for row in range(4):
        one = alone(batch, row)
        with torch.no_grad():
            single = Random(5).weights(network, network(one), one)
        torch.testing.assert_close(single[0], drawn[row, : single.shape[1]], atol=1e-6, rtol=0)
    assert not torch.allclose(drawn[0], drawn[3])
    assert not torch.allclose(Random(6).weights(network, output, batch), drawn)
    next_one = batch.replace(index=batch.index + 1)
    assert not torch.allclose(Random(4).weights(network, output, next_one)[0, :7], drawn[0, :7])


def test_random_weights_follow_their_distribution():
    batch = toy_batch((3,) * 1000)
    network = toy_network(encoder=TokenMLP(6, 5))
    with torch.no_grad():
        output = network(batch)
    drawn = Random(0, SoftmaxNormal(1.0, 1.0)).weights(network, output, batch)
    logits = drawn.log()
    contrast = logits[:, 0] - logits[:, 1]  # difference of two standard normal numbers
    assert contrast.mean().item() == pytest.approx(0.0, abs=0.2)
    assert contrast.std().item() == pytest.approx(2**0.5, abs=0.15)


def test_another_network_answers_with_its_own_weights_and_query():
    network, other, batch = paired("bilstm"), paired("average"), pairs()
    found = counterfactual(network, batch, Other(other.train()))
    assert other.training
    with torch.no_grad():
        output = network.eval()(batch)
        weights = other.eval()(batch).attention
        changed = network.classify(output.values, weights, batch).softmax(-1)
    change = (changed - output.logits.softmax(-1)).abs().sum(-1) / 2
    torch.testing.assert_close(found.change[[0, 1, 3]], change[[0, 1, 3]], atol=1e-6, rtol=0)


def test_a_network_of_other_data_is_the_users_mistake():
    other = PooledNetwork(TokenMLP(6, 5)).build(DataSchema(num_classes=2, vocabulary_size=VOCABULARY + 1))
    with pytest.raises(InputError, match=r"trained with vocabulary_size 31, this one with 30; both must be trained"):
        counterfactual(toy_network(), toy_batch(), Other(other))


def test_shuffled_weights_are_no_draw_by_example():
    with pytest.raises(InputError, match="Shuffled"):
        Random(0, Shuffled())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_parts_and_lightnings_hooks_change_nothing(mode, source):
    network, batch = toy_network(), toy_batch()
    expected = counterfactual(network, batch, source)
    network.train()
    with mode():
        found = counterfactual(network, batch, source, max_tokens=13)
    assert network.training
    for name, values in vars(expected).items():
        torch.testing.assert_close(getattr(found, name).clone(), values, atol=1e-5, rtol=0, equal_nan=True)
