"""Scores that know nothing, and networks set back to their start."""

import copy

import pytest
import torch
from torch import nn

from lightning_attn.attribution import get, untrained
from lightning_attn.errors import InputError
from lightning_attn.mitigations import InstanceWeighting
from tests.helpers.toy_bags import BAG_NETWORKS, toy_bag_network, toy_bags
from tests.helpers.toys import toy_batch, toy_network


def test_uniform_scores_are_the_same_everywhere() -> None:
    batch = toy_batch(special=True)
    assert torch.equal(get("uniform").attribute(toy_network(), batch), batch.inner.float())


@pytest.mark.parametrize("kind", BAG_NETWORKS)
def test_an_untrained_network_is_another_one(kind: str) -> None:
    network = toy_bag_network(kind)
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(5)
    expected_draw = torch.rand(3)
    torch.manual_seed(5)
    fresh = untrained(network, seed=1)
    assert torch.equal(torch.rand(3), expected_draw), "the global random state is left alone"
    again, other = untrained(network, seed=1).state_dict(), untrained(network, seed=2).state_dict()
    for name, value in fresh.state_dict().items():
        assert torch.equal(network.state_dict()[name], before[name])
        assert torch.equal(again[name], value)
        assert not torch.equal(value, before[name])
        assert not torch.equal(value, other[name])


def test_untrained_attention_does_not_depend_on_training() -> None:
    batch = toy_bags()
    one, other = toy_bag_network(sharpness=1.0), toy_bag_network(sharpness=4.0)
    control = get("untrained", seed=3)
    assert torch.equal(control.attribute(one, batch), control.attribute(other, batch))
    torch.testing.assert_close(control.attribute(one, batch).sum(dim=1), torch.ones(4))


def test_a_mitigation_is_no_part_of_the_network_that_starts_anew() -> None:
    network = toy_bag_network()
    network.set_mitigation(InstanceWeighting())
    untrained(network)


def test_parameters_that_nobody_can_draw_are_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    network = toy_bag_network()
    network.own = Own()
    with pytest.raises(InputError, match=r"own\.scale belongs to a module without reset_parameters"):
        get("untrained").attribute(network, toy_bags())
