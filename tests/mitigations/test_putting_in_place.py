"""A mitigation is put in place by one method, built with the network; nothing else trains unmitigated in silence."""

import pytest
from torch import nn

from lightning_attn.attention import AdditiveAttention
from lightning_attn.encoders import TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.mitigations import (
    Compose,
    InstanceWeighting,
    LeakagePenalty,
    Mitigation,
    NoMitigation,
    RandomAttention,
    Uniform,
)
from lightning_attn.mitigations.base import MitigationCarrier
from lightning_attn.networks import AttentionEnsemble, AttentionNetwork, BagNetwork, PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema

TEXTS = DataSchema(num_classes=2, vocabulary_size=20)


class Own(PooledNetwork):
    """Somebody's network, with an attention layer of their own."""

    def __init__(self) -> None:
        super().__init__(TokenMLP(4, 4), OwnAttention())


class OwnAttention(AdditiveAttention):
    pass


def text_network() -> PooledNetwork:
    return PooledNetwork(TokenMLP(4, 4))


NETWORKS = {
    "pooled": (text_network, TEXTS),
    "bags": (BagNetwork, DataSchema(num_classes=2, feature_shape=(3,))),
    "subclass": (Own, TEXTS),
    "ensemble": (lambda: AttentionEnsemble([text_network(), text_network()]), TEXTS),
}
CARRIERS = {
    "network": lambda network: network,
    "attention": lambda network: network.attention,
    "module": AttentionClassifier,
}


@pytest.fixture(params=[False, True], ids=["before build", "after build"])
def early(request: pytest.FixtureRequest) -> bool:
    return not request.param


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
@pytest.mark.parametrize(("make", "schema"), NETWORKS.values(), ids=NETWORKS)
def test_an_assignment_is_refused_and_changes_nothing(make, schema, carrier, early: bool) -> None:
    network: AttentionNetwork = make()
    if not early:
        network.build(schema)
    present, parts = network.mitigation, dict(network.named_modules())
    with pytest.raises(InputError, match=r"call set_mitigation\(\.\.\.\)"):
        carrier(network).mitigation = InstanceWeighting()
    assert network.mitigation is present
    assert dict(network.named_modules()) == parts


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
@pytest.mark.parametrize("name", ["pooled", "bags", "subclass"])
def test_it_is_put_in_place_and_built_once(name: str, carrier, early: bool) -> None:
    make, schema = NETWORKS[name]
    network: AttentionNetwork = make()
    if not early:
        network.build(schema)
    mitigation = Compose([InstanceWeighting(), LeakagePenalty()])  # a second build would be refused
    holder: MitigationCarrier = carrier(network)
    holder.set_mitigation(mitigation)
    holder.set_mitigation(mitigation)
    network.build(schema)
    assert network.mitigation is network.attention.mitigation is holder.mitigation is mitigation
    assert all(part.built for part in mitigation.mitigations)
    assert "attention.mitigation.mitigations.1.moments" in network.state_dict()
    assert not any("mitigation" in key for key in network.inference_state())


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
def test_an_ensemble_takes_none_however_it_is_asked(carrier, early: bool) -> None:
    make, schema = NETWORKS["ensemble"]
    network = make() if early else make().build(schema)
    carrier(network).set_mitigation(NoMitigation())
    with pytest.raises(InputError, match="takes no mitigation"):
        carrier(network).set_mitigation(InstanceWeighting())


def test_what_predicts_is_loaded_without_what_a_mitigation_learned() -> None:
    learned, fresh = text_network().build(TEXTS), text_network().build(TEXTS)
    learned.set_mitigation(InstanceWeighting())
    fresh.load_inference_state(learned.state_dict())
    assert dict(fresh.state_dict()).keys() == learned.inference_state().keys()
    assert fresh.head.layers.weight.equal(learned.head.layers.weight)
    scorer = {id(parameter) for parameter in learned.scorer_parameters()}
    assert not scorer & {id(parameter) for parameter in learned.mitigation.parameters()}
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_inference_state({})


def test_hooks_by_their_names_of_0_1_0_go_on_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match="Slow.trainable is called lr_scales now"):

        class Slow(Mitigation):
            def trainable(self, network, epoch: int) -> dict[nn.Module, float]:
                return dict.fromkeys(network.value_path(), 0.1)

    with pytest.warns(DeprecationWarning, match="is called (attendable|random_counterpart) now") as warned:

        class Picky(AdditiveAttention):
            def attended(self, batch: Batch) -> Batch:
                return batch

            @property
            def independent(self) -> RandomAttention:
                return Uniform()

    assert len(warned) == 2
    network = PooledNetwork(TokenMLP(4, 4), Picky()).build(TEXTS)
    assert Compose([Slow()]).lr_scales(network, 0) == dict.fromkeys(network.value_path(), 0.1)
    assert isinstance(network.random_counterpart, Uniform)


def test_a_property_of_a_carrier_holds_against_a_module() -> None:
    """Torch would register the module past the property."""
    with pytest.raises(AttributeError):
        text_network().schema = nn.Linear(1, 1)
