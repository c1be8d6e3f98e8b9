from __future__ import annotations

import pytest
import torch

from lightning_attn.attribution import METHODS, TransformerAttribution, get
from lightning_attn.errors import InputError
from lightning_attn.networks import AttentionNetwork
from tests.helpers.tiny_models import toy_transformer
from tests.helpers.toys import alone, toy_batch, toy_network


def network_for(name: str, **options) -> AttentionNetwork:
    if issubclass(METHODS[name], TransformerAttribution):
        return toy_transformer(seed=2, **options)  # one in which some attention head has a positive mean gradient
    return toy_network(**options)


@pytest.mark.parametrize("name", sorted(METHODS))
class TestEveryMethod:
    def test_padding_and_specials_score_zero(self, name):
        batch = toy_batch(special=True, pad_to=15)
        scores = get(name).attribute(network_for(name), batch)
        assert scores.shape == batch.valid.shape
        assert not scores[~batch.inner].any()
        assert scores[batch.inner].abs().sum() > 0

    def test_an_example_scores_the_same_alone_and_in_a_batch(self, name):
        batch, network = toy_batch(special=True, pad_to=15), network_for(name)
        together = get(name).attribute(network, batch)
        for row in range(len(batch)):
            single = get(name).attribute(network, alone(batch, row))
            torch.testing.assert_close(together[row, : single.shape[1]], single[0], atol=1e-5, rtol=0)

    def test_works_in_inference_mode_and_leaves_no_trace(self, name):
        network = network_for(name)
        expected = get(name).attribute(network, toy_batch())
        network.train()
        with torch.inference_mode():
            found = get(name).attribute(network, toy_batch())
        torch.testing.assert_close(found.clone(), expected, atol=1e-6, rtol=0)
        assert network.training
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not found.requires_grad

    def test_the_default_class_is_the_predicted_one(self, name):
        batch, network = toy_batch(classes=3), network_for(name, classes=3)
        predicted = network(batch).logits.argmax(-1)
        torch.testing.assert_close(
            get(name).attribute(network, batch, predicted), get(name).attribute(network, batch), atol=1e-6, rtol=0
        )

    def test_a_multi_label_network_is_explained_too(self, name):
        batch = toy_batch(classes=3, multi_label=True)
        scores = get(name).attribute(network_for(name, classes=3, multi_label=True), batch)
        assert scores.isfinite().all()


def test_an_unknown_name_is_answered_with_the_names_that_exist():
    with pytest.raises(InputError, match=r"no attribution method 'shap'.*attention.*gradient.*occlusion"):
        get("shap")


@pytest.mark.parametrize(
    "name", sorted(name for name, method in METHODS.items() if issubclass(method, TransformerAttribution))
)
def test_what_looks_inside_self_attention_refuses_other_networks(name):
    with pytest.raises(InputError, match=r"looks inside self-attention.*PooledNetwork.*use TransformerNetwork"):
        get(name).attribute(toy_network(), toy_batch())
