"""Whatever attributes or measures says the same of packed bags as of padded ones."""

import pytest
import torch

from lightning_attn.attribution import get
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.callbacks.sampled import ExampleSample
from lightning_attn.metrics import DEFAULT_MEASURES, measure
from tests.helpers.toy_bags import BAG_NETWORKS, toy_bag_network, toy_bags

METHODS = (
    "attention",
    "gradient",
    "gradient_norm",
    "gradient_x_input",
    "integrated_gradients",
    "occlusion",
    "random",
    "uniform",
    "untrained",
)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["gated", "class", "sum", "max"])
def test_attributions_say_the_same(kind: str, name: str) -> None:
    network, batch, method = toy_bag_network(kind), toy_bags(), get(name)
    packed, padded = method.attribute(network, batch.pack()), method.attribute(network, batch)
    assert packed.shape == batch.valid.shape
    assert (packed[~batch.valid] == 0).all()
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", BAG_NETWORKS)
def test_measures_say_the_same(kind: str) -> None:
    network, batch = toy_bag_network(kind), toy_bags()
    (packed, _), (padded, _) = measure(network, batch.pack()), measure(network, batch)
    assert tuple(packed) == DEFAULT_MEASURES
    for name, value in padded.items():
        torch.testing.assert_close(packed[name], value, atol=1e-5, rtol=1e-4, equal_nan=True, msg=name)
    assert not padded["faithfulness/comprehensiveness"][[0, 2, 3]].isnan().any()


def test_a_sample_is_padded_and_cut_to_its_longest_bag() -> None:
    batch, sample = toy_bags(), ExampleSample(None)
    sample.add(batch.pack().select(torch.tensor([0, 3])))
    (chosen,) = sample.collected()
    assert not chosen.packed
    assert chosen.inputs.shape == (2, 7, 6)
    assert torch.equal(chosen.inputs[0], batch.inputs[0, :7])
    assert torch.equal(chosen.inputs[1, :4], batch.inputs[3, :4])


@pytest.mark.parametrize("kind", ["multihead", "class"])
def test_a_gradient_under_fixed_attention_holds_every_attention_head_fixed(kind: str) -> None:
    network, batch = toy_bag_network(kind), toy_bags()
    found = embedding_gradient(network, batch, attention_fixed=True)
    heads = network(batch).heads.detach()
    inputs = batch.inputs.clone().requires_grad_()
    hidden = network.encoder(inputs)
    pooled = torch.einsum("bml,blh->bmh", heads, hidden).flatten(1)
    probability = network.head(pooled).softmax(dim=-1).gather(1, found.target[:, None])
    (expected,) = torch.autograd.grad(probability.sum(), inputs)
    torch.testing.assert_close(found.gradient, expected, atol=1e-6, rtol=1e-4)
    free = embedding_gradient(network, batch, attention_fixed=False).gradient
    assert not torch.allclose(free, expected, atol=1e-4)
