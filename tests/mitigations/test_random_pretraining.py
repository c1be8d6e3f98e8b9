"""Random-attention pretraining: what the head sees, what learns when, and that frozen means frozen."""

import pytest
import torch
from torch import nn

from lightning_attn.attention import AdditiveAttention
from lightning_attn.encoders import BiLSTM
from lightning_attn.mitigations import RandomPretraining, UniformSubset
from lightning_attn.networks import PooledNetwork
from lightning_attn.types import DataSchema
from tests.helpers.toys import toy_batch


def local_network(mitigation: RandomPretraining) -> PooledNetwork:
    torch.manual_seed(0)
    network = PooledNetwork(BiLSTM(6, 4, values="local"), AdditiveAttention())
    network.set_mitigation(mitigation)
    return network.build(DataSchema(num_classes=2, vocabulary_size=30)).train()


def test_the_head_sees_random_attention_first_and_learned_attention_then() -> None:
    mitigation = RandomPretraining(epochs=2)
    network, batch = local_network(mitigation), toy_batch()
    for epoch, phase in enumerate(["random", "random", "learn"]):
        mitigation.lr_scales(network, epoch)
        output = network(batch)
        assert mitigation.phase == phase
        assert torch.equal(output.attention, output.learned) is (phase == "learn")


def test_evaluation_always_uses_the_learned_attention() -> None:
    network = local_network(RandomPretraining(epochs=2)).eval()
    output = network(toy_batch())
    assert torch.equal(output.attention, output.learned)


def test_the_scorer_gets_no_gradient_while_attention_is_random() -> None:
    mitigation = RandomPretraining(epochs=1)
    network = local_network(mitigation)
    mitigation.lr_scales(network, 0)
    network(toy_batch()).logits.sum().backward()
    scorer = [*network.attention.parameters(), *network.encoder.lstm.parameters()]
    assert all(parameter.grad is None for parameter in scorer)
    assert network.encoder.embedding.weight.grad.abs().sum() > 0


def test_the_value_path_is_named_in_the_second_phase_only() -> None:
    mitigation = RandomPretraining(epochs=1)
    network = local_network(mitigation)
    assert mitigation.lr_scales(network, 0) == {}
    rates = mitigation.lr_scales(network, 1)
    assert set(rates.values()) == {0.0}
    assert set(rates) == {network.encoder.embedding, network.encoder.dropout, network.encoder.local, network.head}


def test_finetuning_slows_the_value_path() -> None:
    mitigation = RandomPretraining(epochs=1, then="finetune", finetune_rate=0.2)
    rates = mitigation.lr_scales(local_network(mitigation), 1)
    assert set(rates.values()) == {0.2}


def test_with_contextual_values_the_shared_encoder_counts_as_value_path() -> None:
    network = PooledNetwork(BiLSTM(6, 4), AdditiveAttention()).build(DataSchema(num_classes=2, vocabulary_size=30))
    named = {id(p) for module in RandomPretraining(1).lr_scales(network, 1) for p in module.parameters()}
    learning = {name for name, parameter in network.named_parameters() if id(parameter) not in named}
    assert learning == {name for name, _ in network.named_parameters() if name.startswith("attention.")}


def test_draws_go_on_where_the_state_was_saved() -> None:
    batch, attention = toy_batch(), torch.zeros(4, 12)
    whole = RandomPretraining(epochs=1)
    first, second = whole.observe(attention, batch), whole.observe(attention, batch)
    assert not torch.equal(first, second)
    broken = RandomPretraining(epochs=1)
    broken.observe(attention, batch)
    resumed = RandomPretraining(epochs=1)
    resumed.load_state_dict(broken.state_dict())
    assert torch.equal(resumed.observe(attention, batch), second)


def test_the_seed_matters_and_the_global_state_does_not() -> None:
    batch, attention = toy_batch(), torch.zeros(4, 12)
    draws = []
    for seed, state in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(state)
        draws.append(RandomPretraining(epochs=1, seed=seed).observe(attention, batch))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_distribution_is_a_choice() -> None:
    mitigation = RandomPretraining(epochs=1, distribution=UniformSubset(2))
    drawn = mitigation.observe(torch.zeros(4, 12), toy_batch())
    assert set(drawn.unique().tolist()) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"finetune_rate": 0.0}, {"finetune_rate": 1.5}])
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"epochs >= 1|finetune_rate"):
        RandomPretraining(**wrong)


def test_a_mitigation_is_part_of_the_networks_state() -> None:
    network = local_network(RandomPretraining(epochs=1))
    assert isinstance(network.mitigation, nn.Module)
    assert any("mitigation" in key for key in network.state_dict())
