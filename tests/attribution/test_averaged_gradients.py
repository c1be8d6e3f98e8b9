from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import GradientShap as CaptumGradientShap
from captum.attr import NoiseTunnel, Saliency

from lightning_attn.attribution import GradientShap, SmoothGradient, get
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.errors import InputError
from lightning_attn.ops.randomness import normal
from tests.helpers.toys import toy_batch, toy_network


def test_they_are_sums_of_squares():
    batch, network = toy_batch(special=True), toy_network()
    found = embedding_gradient(network, batch, attention_fixed=False)
    for name, elements in (
        ("simple_gradient", found.gradient),
        ("input_gradient", found.gradient * found.embeddings),
    ):
        scores = get(name).attribute(network, batch)
        torch.testing.assert_close(scores[batch.inner], (elements**2).sum(-1)[batch.inner], atol=1e-7, rtol=1e-5)


def test_the_gradient_is_that_of_the_whole_network():
    batch, network = toy_batch(lengths=(3,)), toy_network()
    embeddings = network.embed(batch).detach().double()
    double = toy_network().double()
    target = network(batch).logits.argmax(-1)[0]
    expected = torch.zeros(3)
    for position in range(3):
        for number in range(embeddings.shape[-1]):
            step = torch.zeros_like(embeddings)
            step[0, position, number] = 1e-5
            up, down = (double(batch, embeddings=embeddings + sign * step).logits.softmax(-1)[0] for sign in (1, -1))
            expected[position] += ((up - down)[target] / 2e-5).item() ** 2
    torch.testing.assert_close(get("simple_gradient").attribute(network, batch)[0], expected, atol=1e-6, rtol=1e-3)


def test_integrated_gradients_share_their_elements_with_the_signed_ones():
    batch, network = toy_batch(lengths=(6, 3)), toy_network()
    squared = get("squared_integrated_gradients", steps=30)
    signed = get("integrated_gradients", steps=30).attribute(network, batch)
    elements = squared.elements(network, batch, None)
    torch.testing.assert_close(elements.sum(-1)[batch.inner], signed[batch.inner], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(squared.attribute(network, batch)[batch.inner], (elements**2).sum(-1)[batch.inner])


def test_without_noise_smooth_gradients_are_simple_ones():
    batch, network = toy_batch(), toy_network()
    smooth = SmoothGradient(noise=0, samples=3).attribute(network, batch)
    torch.testing.assert_close(smooth, get("simple_gradient").attribute(network, batch), atol=1e-7, rtol=1e-4)


def test_smooth_gradients_average_over_noise_of_the_stated_size():
    batch, network = toy_batch(lengths=(5, 2)), toy_network()
    embeddings = network.embed(batch).detach()
    total = torch.zeros_like(embeddings)
    target = network(batch).logits.argmax(-1)
    for sample in range(4):
        noise = normal(batch.index, embeddings[0].numel(), 7 * 2**20 + sample).view_as(embeddings)
        for row, length in enumerate((5, 2)):
            own = embeddings[row, :length]
            noise[row] *= 0.3 * (own.max() - own.min())
            noise[row, length:] = 0
        point = (embeddings + noise).requires_grad_()
        chosen = network(batch, embeddings=point).logits.softmax(-1).gather(-1, target[:, None])
        total += torch.autograd.grad(chosen.sum(), point)[0]
    expected = ((total / 4) ** 2).sum(-1) * batch.valid
    found = SmoothGradient(noise=0.3, samples=4, seed=7, max_tokens=20).attribute(network, batch)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)


def test_smooth_gradients_estimate_what_captums_noise_tunnel_does():
    batch, network = toy_batch(lengths=(4,)), toy_network()
    embeddings = network.embed(batch).detach()
    target = int(network(batch).logits.argmax(-1))
    deviation = float(0.15 * (embeddings.max() - embeddings.min()))

    def probability(points: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(len(points), dtype=torch.int64)
        return network(batch.select(rows), embeddings=points).logits.softmax(-1)

    torch.manual_seed(0)
    theirs = NoiseTunnel(Saliency(probability)).attribute(
        embeddings, nt_samples=3000, nt_samples_batch_size=500, stdevs=deviation, target=target, abs=False
    )
    ours = SmoothGradient(samples=3000).elements(network, batch, None)
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, (theirs / scale).float(), atol=0.03, rtol=0)


def test_gradient_shap_estimates_what_captums_does():
    batch, network = toy_batch(lengths=(4,)), toy_network()
    embeddings = network.embed(batch).detach()
    target = int(network(batch).logits.argmax(-1))

    def probability(points: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(len(points), dtype=torch.int64)
        return network(batch.select(rows), embeddings=points).logits.softmax(-1)

    np.random.seed(0)
    theirs = CaptumGradientShap(probability).attribute(
        embeddings, torch.zeros_like(embeddings), n_samples=3000, target=target
    )
    ours = GradientShap(samples=3000).elements(network, batch, None)
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, (theirs / scale).float(), atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ["smooth_gradient", "gradient_shap"])
def test_draws_belong_to_the_example(name):
    batch, network = toy_batch(lengths=(6, 3, 4)), toy_network()
    scores = get(name, samples=5).attribute(network, batch)
    backwards = torch.tensor([2, 1, 0])
    again = get(name, samples=5, max_tokens=7).attribute(network, batch.select(backwards))
    torch.testing.assert_close(again, scores[backwards], atol=1e-7, rtol=1e-4)
    assert not torch.allclose(get(name, samples=5, seed=1).attribute(network, batch), scores)


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="at least 1 sample, not 0"):
        get("gradient_shap", samples=0)
    with pytest.raises(InputError, match="noise of 0 or more, not -1"):
        get("smooth_gradient", noise=-1)
