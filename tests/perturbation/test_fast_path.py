"""A fast path of a user's own: registered by type, or offered by a method as in release 0.1.0."""

import re

import pytest
import torch
from torch import nn

from lightning_attn.encoders import TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.networks import AttentionEnsemble, PooledNetwork
from lightning_attn.perturbation import (
    Delete,
    FullReader,
    LocalKeys,
    VariantReader,
    encoder_fast_path,
    inherits_unchanged,
    leave_one_out,
    network_fast_path,
    probabilities,
    variant_reader,
)
from lightning_attn.perturbation.pooled import PooledReader
from lightning_attn.types import DataSchema
from tests.helpers.toys import VOCABULARY, toy_batch


class DoubledNetwork(PooledNetwork):
    def classify(self, values, attention, batch):
        return 2 * super().classify(values, attention, batch)


class DoubledReader(VariantReader):
    def __init__(self, network):
        self.network = network

    def logits(self, batch, examples, keep):
        return self.network(Delete().apply(batch.select(examples), keep, self.network.schema)).logits


@network_fast_path.register(DoubledNetwork)
def doubled(network, perturbation):
    return DoubledReader(network) if inherits_unchanged(network, DoubledNetwork, "classify") else None


class _ScaledEncoder(TokenMLP):
    def contextualise(self, embeddings, batch):
        return 2 * super().contextualise(embeddings, batch)


def built(network):
    torch.manual_seed(0)
    return network.build(DataSchema(2, vocabulary_size=VOCABULARY)).eval()


def check_numbers(network):
    batch = toy_batch((7, 3, 1))
    keep = leave_one_out(batch)
    expected = probabilities(network, batch, keep, fast_path=False)
    torch.testing.assert_close(probabilities(network, batch, keep), expected, atol=1e-6, rtol=0)


def test_a_network_of_ones_own_is_registered_by_its_type():
    network = built(DoubledNetwork())
    assert isinstance(variant_reader(network, Delete()), DoubledReader)
    check_numbers(network)
    network.classify = lambda values, attention, batch: attention
    assert isinstance(variant_reader(network, Delete()), FullReader)
    members = variant_reader(AttentionEnsemble([built(DoubledNetwork()), built(PooledNetwork())]), Delete()).members
    assert [type(member) for member in members] == [DoubledReader, PooledReader]


def test_an_encoder_of_ones_own_is_registered_by_its_type():
    network = built(PooledNetwork(_ScaledEncoder(6, 8)))
    assert isinstance(variant_reader(network, Delete()), FullReader)
    # A class of this test alone, since a registration cannot be taken back.
    network.encoder.__class__ = type("_OtherEncoder", (_ScaledEncoder,), {})
    encoder_fast_path.register(type(network.encoder))(lambda encoder: LocalKeys(encoder.contextualise))
    assert isinstance(variant_reader(network, Delete()), PooledReader)
    check_numbers(network)


class OldNetwork(DoubledNetwork):
    def removal(self, perturbation):
        return DoubledReader(self)


class _OldEncoder(_ScaledEncoder):
    def removal(self):
        return LocalKeys(self.contextualise)


@pytest.mark.parametrize(
    ("network", "kind"),
    [(lambda: OldNetwork(), DoubledReader), (lambda: PooledNetwork(_OldEncoder(6, 8)), PooledReader)],
)
def test_the_method_of_0_1_0_is_asked_with_a_warning(network, kind):
    network = built(network())
    with pytest.warns(DeprecationWarning, match="removal is deprecated: decorate it"):
        assert isinstance(variant_reader(network, Delete()), kind)
    with pytest.warns(DeprecationWarning, match="removal"):
        check_numbers(network)


def test_a_method_of_0_1_0_that_asks_its_base_class_is_told():
    class Asking(PooledNetwork):
        def removal(self, perturbation):
            return super().removal(perturbation)

    class Broken(PooledNetwork):
        def removal(self, perturbation):
            return nn.Module().missing

    with (
        pytest.warns(DeprecationWarning, match="removal"),
        pytest.raises(InputError, match=re.escape("Asking.removal calls that of")),
    ):
        variant_reader(built(Asking()), Delete())
    with pytest.warns(DeprecationWarning, match="removal"), pytest.raises(AttributeError, match="missing"):
        variant_reader(built(Broken()), Delete())
