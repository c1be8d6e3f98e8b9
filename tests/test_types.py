"""`Batch`: packed and padded."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric.utilities import move_data_to_device

from lightning_attn.types import Batch
from tests.helpers.toy_bags import toy_bags

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(sizes=SIZES, seed=st.integers(0, 9), instance=st.sampled_from([(), (3,), (1, 2, 2)]))
def test_packing_and_padding_undo_each_other(sizes: list[int], seed: int, instance: tuple[int, ...]) -> None:
    batch = toy_bags(sizes, seed, feature_shape=instance)
    packed = batch.pack()
    assert packed.packed
    assert packed.pack() is packed
    assert packed.inputs.shape == (sum(sizes), *instance)
    padded = packed.padded()
    assert not padded.packed
    assert padded.padded() is padded
    expected = batch.inputs.clone()
    expected[~batch.valid] = 0.0
    assert torch.equal(padded.inputs, expected)


@given(sizes=SIZES, seed=st.integers(0, 9), data=st.data())
def test_selected_bags_take_their_instances_along(sizes: list[int], seed: int, data: st.DataObject) -> None:
    packed = toy_bags(sizes, seed).pack()
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(sizes) - 1))), dtype=torch.int64)
    for chosen in (rows, torch.isin(torch.arange(len(sizes)), rows)):
        found, expected = packed.select(chosen), packed.padded().select(chosen)
        assert found.packed
        assert torch.equal(found.padded().inputs, expected.inputs)
        assert torch.equal(found.index, expected.index)
        assert torch.equal(found.evidence, expected.evidence)


def test_values_of_a_packed_batch_find_their_places() -> None:
    batch = toy_bags((2, 3)).pack()
    values = torch.arange(5.0, requires_grad=True)
    placed = batch.unpack(values)
    assert placed.tolist() == [[0.0, 1.0, 0.0], [2.0, 3.0, 4.0]]
    (placed * torch.arange(6.0).view(2, 3)).sum().backward()
    assert values.grad.tolist() == [0.0, 1.0, 3.0, 4.0, 5.0]
    assert batch.padded().unpack(placed) is placed


def test_a_packed_batch_is_not_reshaped_tensor_by_tensor() -> None:
    packed = toy_bags((2, 3)).pack()
    for function in (lambda tensor: tensor.repeat_interleave(2, dim=0), lambda tensor: tensor[[1, 0]]):
        with pytest.raises(ValueError, match=r"use select\(rows\), or padded\(\) first"):
            packed.apply(function)
    copy = packed.apply(torch.clone)
    assert copy.packed
    assert torch.equal(copy.inputs, packed.inputs)
    assert copy.inputs is not packed.inputs


def test_lightning_moves_a_packed_batch() -> None:
    moved = move_data_to_device(toy_bags((2, 3)).pack(), torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.packed
    assert moved.inputs.device.type == moved.valid.device.type == "meta"
    assert toy_bags((2, 3)).pack().to("meta").inputs.device.type == "meta"
