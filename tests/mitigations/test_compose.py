"""Several mitigations at once: each hook, and who acts in which phase."""

import pytest
import torch
from torch import Tensor, nn

from lightning_attn.mitigations import (
    Compose,
    InstanceWeighting,
    MaskedFineTuning,
    Mitigation,
    NoMitigation,
    RandomPretraining,
)
from lightning_attn.types import AttentionOutput, Batch, DataSchema
from tests.helpers.toys import toy_batch, toy_network


class Halve(Mitigation):
    """Changes everything in a way that is easy to follow."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def perturb(self, batch: Batch) -> Batch:
        return batch.replace(inputs=batch.inputs + 1)

    def observe(self, attention: Tensor, batch: Batch) -> Tensor:
        return attention / 2

    def weigh(self, attention: Tensor, batch: Batch) -> Tensor:
        return torch.full((len(batch),), self.weight)

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: object) -> Tensor:
        return torch.tensor(self.weight)

    def lr_scales(self, network: object, epoch: int) -> dict[nn.Module, float]:
        return {network.head: self.weight}  # type: ignore[attr-defined]


def test_hooks_are_chained() -> None:
    batch, network = toy_batch(), toy_network()
    both = Compose([Halve(0.5), Halve(0.25), NoMitigation()])
    attention = torch.ones(batch.valid.shape)
    assert torch.equal(both.perturb(batch).inputs, batch.inputs + 2)
    assert torch.equal(both.observe(attention, batch), attention / 4)
    assert torch.equal(both.weigh(attention, batch), torch.full((4,), 0.125))
    assert both.auxiliary_loss(network(batch), batch, network) == 0.75
    assert both.lr_scales(network, 0) == {network.head: 0.25}


def test_nothing_to_do_stays_nothing() -> None:
    batch, network = toy_batch(), toy_network()
    none = Compose([NoMitigation(), NoMitigation()])
    assert none.weigh(torch.ones(4, 12), batch) is None
    assert none.auxiliary_loss(network(batch), batch, network) is None
    assert not none.freezes


def test_pretraining_is_unweighted() -> None:
    batch, network = toy_batch(), toy_network()
    both = Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=0)])
    network.set_mitigation(both)
    output = network.train()(batch)
    both.lr_scales(network, 0)
    assert both.freezes
    assert both.phase == "random"
    assert both.weigh(output.learned, batch) is None
    assert both.auxiliary_loss(output, batch, network) is None
    both.lr_scales(network, 1)
    assert both.phase == "learn"
    assert both.weigh(output.learned, batch).shape == (4,)
    assert both.auxiliary_loss(output, batch, network) > 0


def test_what_is_read_is_changed_in_pretraining_too() -> None:
    batch, network = toy_batch(lengths=(9, 9, 9, 9)), toy_network()
    both = Compose([RandomPretraining(epochs=1), MaskedFineTuning(share=1.0)])
    network.set_mitigation(both)
    for epoch in (0, 1):
        both.lr_scales(network, epoch)
        assert (both.perturb(batch).inputs != batch.inputs).any()


def test_all_metrics_are_handed_on() -> None:
    both = Compose([RandomPretraining(epochs=1), InstanceWeighting()])
    both.build(DataSchema(num_classes=2, vocabulary_size=30))
    classifier = {"mask_classifier_nll", "mask_classifier_calibration"}
    assert set(both.metrics()) == {"effective_sample_size", "weight_max", "raw_weight_mean", *classifier}


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="NoMitigation"):
        Compose([])
