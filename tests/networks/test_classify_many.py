"""`classify_many`: many attentions of one example, against `classify` one by one."""

from __future__ import annotations

import pytest
import torch

from lightning_attn.encoders import TokenMLP
from lightning_attn.networks import AttentionNetwork, MLPClassifier, PairedNetwork, PooledNetwork
from lightning_attn.types import DataSchema
from tests.helpers.toy_pairs import pairs
from tests.helpers.toys import Nonlinear, toy_batch


class PairedNonlinear(PairedNetwork):
    """The same for pairs."""

    def classify(self, values, attention, batch):
        """Logits of the squared sum."""
        return super().classify(values.square(), attention, batch)


NETWORKS = {
    "pooled": lambda: PooledNetwork(TokenMLP(8, 6)),
    "mlp": lambda: PooledNetwork(TokenMLP(8, 6), head=MLPClassifier(5)),
    "own": lambda: Nonlinear(TokenMLP(8, 6)),
    "paired": lambda: PairedNetwork(TokenMLP(8, 6), TokenMLP(8, 6)),
    "own paired": lambda: PairedNonlinear(TokenMLP(8, 6), TokenMLP(8, 6)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_equals_one_by_one(name, count):
    torch.manual_seed(0)
    network = NETWORKS[name]().build(DataSchema(num_classes=3, vocabulary_size=30, query_vocabulary_size=30)).eval()
    batch = pairs() if "paired" in name else toy_batch((9, 4, 1, 6))
    with torch.no_grad():
        values = network(batch).values
        attention = torch.rand(4, count, 9).masked_fill(~batch.valid[:, None], 0.0)
        found = network.classify_many(values, attention, batch)
        assert found.shape == (4, count, 3)
        for number in range(count):
            expected = network.classify(values, attention[:, number], batch)
            torch.testing.assert_close(found[:, number], expected, atol=1e-6, rtol=1e-5)
        general = AttentionNetwork.classify_many(network, values, attention, batch)
    torch.testing.assert_close(found, general, atol=1e-6, rtol=1e-5)


def test_the_values_are_not_repeated_where_one_product_does():
    network = NETWORKS["pooled"]().build(DataSchema(num_classes=3, vocabulary_size=30)).eval()
    batch = toy_batch()
    calls = []
    network.classify = lambda *arguments: calls.append(arguments)
    with torch.no_grad():
        network.classify_many(torch.rand(4, 12, 6), torch.rand(4, 3, 12), batch)
    assert not calls
