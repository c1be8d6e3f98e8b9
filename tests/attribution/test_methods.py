from __future__ import annotations

import pytest
import torch
from captum.attr import FeatureAblation

from lightning_attn.attribution import Occlusion, Random, get
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.perturbation.perturbations import Pad, Replace
from tests.helpers.toys import toy_batch, toy_network


@pytest.mark.parametrize(("perturbation", "token"), [(Replace(), 1), (Pad(), 0)])
def test_signed_occlusion_is_captums_feature_ablation(perturbation, token):
    batch, network = toy_batch(lengths=(7, 5, 2)), toy_network()
    target = network(batch).logits.argmax(-1)

    def probability(ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return network(batch.select(rows).replace(inputs=ids)).logits.softmax(-1)

    # captum would also replace padding, which the networks never read.
    expected = FeatureAblation(probability).attribute(
        batch.inputs, baselines=token, target=target, additional_forward_args=(torch.arange(3),)
    )
    found = Occlusion(perturbation, signed=True).attribute(network, batch)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)


def test_occlusion_by_default_deletes_and_averages_absolute_changes():
    batch, network = toy_batch(lengths=(4,), classes=3), toy_network(classes=3)
    full = network(batch).logits.softmax(-1)[0]
    scores = []
    for i in range(4):
        others = [j for j in range(4) if j != i]
        shorter = batch.replace(
            inputs=batch.inputs[:, others], valid=batch.valid[:, others], special=batch.special[:, others]
        )
        scores.append((network(shorter).logits.softmax(-1)[0] - full).abs().mean().item())
    torch.testing.assert_close(Occlusion().attribute(network, batch)[0], torch.tensor(scores), atol=1e-5, rtol=0)


def test_gradient_family_follows_its_formulas():
    batch, network = toy_batch(), toy_network()
    found = embedding_gradient(network, batch)
    product = (found.gradient * found.embeddings).sum(-1)
    for name, expected in (
        ("gradient_x_input", product),
        ("gradient", product.abs()),
        ("gradient_norm", found.gradient.square().sum(-1).sqrt()),
    ):
        scores = get(name).attribute(network, batch)
        torch.testing.assert_close(scores[batch.inner], expected[batch.inner], atol=1e-6, rtol=0)
        assert not torch.allclose(scores, get(name, attention_fixed=False).attribute(network, batch))


def test_integrated_gradients_are_complete():
    batch, network = toy_batch(lengths=(6, 3)), toy_network()
    scores = get("integrated_gradients", steps=300).attribute(network, batch)
    target = network(batch).logits.argmax(-1)
    zero = torch.zeros_like(network.embed(batch))
    difference = network(batch).logits.softmax(-1) - network(batch, embeddings=zero).logits.softmax(-1)
    expected = difference.gather(-1, target[:, None])[:, 0].detach()
    torch.testing.assert_close(scores.sum(-1), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "count"), [("integrated_gradients", "steps"), ("smooth_gradient", "samples"), ("gradient_shap", "samples")]
)
def test_what_reads_a_text_many_times_reads_no_padding_and_few_texts_at_a_time(name, count):
    lengths, times = (9, 2, 6, 2, 9, 4), 20
    batch, network = toy_batch(lengths), toy_network()
    read: list[tuple[int, int]] = []
    hook = network.register_forward_pre_hook(lambda module, arguments: read.append(tuple(arguments[0].inputs.shape)))
    target = torch.zeros(len(lengths), dtype=torch.int64)
    found = get(name, max_tokens=100, **{count: times}).attribute(network, batch, target)
    hook.remove()
    assert sum(rows * width for rows, width in read) <= times * sum(lengths)
    assert max(rows * width for rows, width in read) <= 100
    whole = get(name, **{count: times}).attribute(network, batch, target)
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)


def test_attention_is_the_networks():
    batch, network = toy_batch(), toy_network()
    torch.testing.assert_close(get("attention").attribute(network, batch), network(batch).attention.detach())


def test_random_scores_follow_the_index():
    batch, network = toy_batch(), toy_network()
    scores = Random(seed=1).attribute(network, batch)
    backwards = torch.tensor([3, 2, 1, 0])
    assert torch.equal(Random(seed=1).attribute(network, batch.select(backwards)), scores[backwards])
    assert not torch.equal(Random(seed=2).attribute(network, batch), scores)
