"""Mitigations that draw in every step: attention dropout, random mixing, masked fine-tuning."""

import pytest
import torch
from torch.nn import functional as F

from lightning_attn.mitigations import AttentionDropout, MaskedFineTuning, RandomMixing, Uniform, UniformSubset
from lightning_attn.mitigations.base import DrawingMitigation
from lightning_attn.ops.softmax import attendable
from lightning_attn.types import DataSchema
from tests.helpers.toys import toy_batch, toy_network

SCHEMA = DataSchema(num_classes=2, vocabulary_size=30, replacement_id=1)


def attention_of(batch) -> torch.Tensor:
    return Uniform().sample(torch.zeros(batch.valid.shape), batch)


def test_dropout_keeps_the_mean_and_zeroes_a_share() -> None:
    batch = toy_batch(lengths=(12,) * 400)
    attention, mitigation = attention_of(batch), AttentionDropout(p=0.3)
    seen = torch.cat([mitigation.observe(attention, batch) for _ in range(20)])
    assert (seen == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert seen.sum(dim=-1).mean() == pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(seen[seen > 0], torch.full_like(seen[seen > 0], 1 / 12 / 0.7))


def test_renormalised_dropout_gives_distributions_even_where_nothing_is_left() -> None:
    batch = toy_batch(lengths=(1, 2, 9) * 50, special=False)
    attention = attention_of(batch)
    seen = AttentionDropout(p=0.7, renormalise=True).observe(attention, batch)
    torch.testing.assert_close(seen.sum(dim=-1), torch.ones(150))
    assert torch.equal(seen[::3], attention[::3])  # one token: it stays, dropped or not


def test_random_mixing_adds_the_loss_under_drawn_weights() -> None:
    network, batch = toy_network(), toy_batch()
    output = network(batch)
    found = RandomMixing(share=0.25, distribution=Uniform()).auxiliary_loss(output, batch, network)
    under_even = network.classify(output.values, attention_of(batch), batch)
    torch.testing.assert_close(found, F.cross_entropy(under_even, batch.target) / 3)


def test_random_mixing_takes_several_labels_an_example() -> None:
    network, batch = toy_network(classes=3, multi_label=True), toy_batch(classes=3, multi_label=True)
    output = network(batch)
    found = RandomMixing(distribution=Uniform()).auxiliary_loss(output, batch, network)
    under_even = network.classify(output.values, attention_of(batch), batch)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(under_even, batch.target))


def test_random_mixing_gives_the_scorer_no_gradient() -> None:
    network, batch = toy_network(), toy_batch()
    RandomMixing().auxiliary_loss(network(batch), batch, network).backward()
    assert all(parameter.grad is None for parameter in network.attention.parameters())
    assert network.head.layers.weight.grad.abs().sum() > 0


def test_masked_fine_tuning_replaces_inner_tokens_of_the_last_texts() -> None:
    batch = toy_batch(lengths=(12,) * 200, special=True)
    mitigation = MaskedFineTuning()
    mitigation.build(SCHEMA)
    before = batch.inputs.clone()
    changed = mitigation.perturb(batch).inputs
    assert torch.equal(batch.inputs, before)
    assert torch.equal(changed[:100], before[:100])
    differs = changed[100:] != before[100:]
    assert (changed[100:][differs] == 1).all()
    assert not differs[batch.special[100:]].any()
    # A rate of its own for each text, uniform on [0, 1): every count from 0 to 10 is as likely as any other.
    counts = torch.bincount(differs.sum(dim=1), minlength=11)
    assert differs.sum() / 1000 == pytest.approx(0.5, abs=0.1)
    assert counts[[0, 10]].min() > 0
    assert counts.max() < 25


def test_masked_fine_tuning_zeroes_instances_packed_or_not() -> None:
    torch.manual_seed(0)
    batch = toy_batch(lengths=(3, 7, 5, 6)).replace(inputs=torch.rand(4, 7, 2) + 1)
    batch = batch.pack().padded()
    changed = []
    for form in (batch, batch.pack()):
        mitigation = MaskedFineTuning(share=1.0, seed=3)
        mitigation.build(DataSchema(num_classes=2, feature_shape=(2,)))
        changed.append(mitigation.perturb(form).padded().inputs)
    assert torch.equal(changed[0], changed[1])
    assert 0 < (changed[0][batch.valid] == 0).all(dim=-1).sum() < batch.valid.sum()


def drawn_by(mitigation: DrawingMitigation) -> torch.Tensor:
    batch, network = toy_batch(lengths=(9, 12, 10, 11)), toy_network()
    mitigation.build(SCHEMA)
    if isinstance(mitigation, RandomMixing):
        return mitigation.auxiliary_loss(network(batch), batch, network).detach()
    if isinstance(mitigation, MaskedFineTuning):
        return mitigation.perturb(batch).inputs
    return mitigation.observe(attention_of(batch), batch)


@pytest.mark.parametrize("kind", [AttentionDropout, RandomMixing, MaskedFineTuning])
def test_draws_go_on_where_the_state_was_saved_and_depend_on_the_seed_alone(kind: type[DrawingMitigation]) -> None:
    whole = kind(seed=1)
    first, second = drawn_by(whole), drawn_by(whole)
    assert not torch.equal(first, second)
    broken, resumed = kind(seed=1), kind(seed=1)
    torch.manual_seed(99)
    assert torch.equal(drawn_by(broken), first)
    resumed.load_state_dict(broken.state_dict())
    assert torch.equal(drawn_by(resumed), second)
    assert not torch.equal(drawn_by(kind(seed=2)), first)


def test_even_weights_are_equal_where_attention_may_be() -> None:
    batch = toy_batch(special=True, lengths=(5, 2, 12, 3))
    weights = attention_of(batch)
    allowed = attendable(batch)
    assert (weights[~allowed] == 0).all()
    assert weights[0][allowed[0]].tolist() == pytest.approx([1 / 3] * 3)
    assert not UniformSubset(2).sample(weights, batch).equal(weights)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(AttentionDropout, {"p": 1.0}), (RandomMixing, {"share": 0.0}), (MaskedFineTuning, {"share": 1.5})],
)
def test_wrong_arguments_are_refused(kind: type[DrawingMitigation], wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs"):
        kind(**wrong)
