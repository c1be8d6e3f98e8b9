"""Bidirectional layers over padded texts: the same states and gradients as of packed ones, and as text by text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_attn.ops.recurrent import bidirectional_states, last_states

LAYERS = (nn.LSTM, nn.GRU)


def made(kind: type[Any], seed: int, bias: bool = True) -> Any:
    torch.manual_seed(seed)
    return kind(5, 4, batch_first=True, bidirectional=True, bias=bias).double()


def gradients(layer: nn.Module, states: Tensor, inputs: Tensor) -> list[Tensor]:
    weight = torch.sin(torch.arange(states.numel())).view_as(states)
    return list(torch.autograd.grad((weight * states).sum(), [inputs, *layer.parameters()]))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_states_and_gradients_are_those_of_packed_sequences(
    kind: type[Any], bias: bool, lengths: list[int], seed: int
) -> None:
    layer, count = made(kind, seed, bias), torch.tensor(lengths)
    inputs = torch.randn(len(lengths), max(lengths) + 2, 5, dtype=torch.float64, requires_grad=True)
    states = bidirectional_states(layer, inputs, count)
    packed = pack_padded_sequence(inputs, count, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=inputs.shape[1])
    torch.testing.assert_close(states, expected)
    for found, wanted in zip(gradients(layer, states, inputs), gradients(layer, expected, inputs), strict=True):
        torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        torch.testing.assert_close(bidirectional_states(layer, inputs, count), states.detach())


@pytest.mark.parametrize("kind", LAYERS)
def test_each_text_is_read_as_if_it_were_alone(kind: type[Any]) -> None:
    layer, lengths = made(kind, 0), torch.tensor([3, 1, 6])
    inputs = torch.randn(3, 6, 5, dtype=torch.float64)
    states = bidirectional_states(layer, inputs, lengths)
    last = last_states(states, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, state = layer(inputs[row : row + 1, :length])
        torch.testing.assert_close(states[row : row + 1, :length], alone)
        assert not states[row, length:].any()
        hidden = state[0] if kind is nn.LSTM else state
        torch.testing.assert_close(last[row], hidden.flatten())


@pytest.mark.parametrize("kind", LAYERS)
def test_what_stands_behind_a_text_changes_nothing(kind: type[Any]) -> None:
    layer, lengths = made(kind, 0), torch.tensor([2, 4])
    inputs = torch.randn(2, 4, 5, dtype=torch.float64)
    other = inputs.clone()
    other[0, 2:] = torch.inf
    assert torch.equal(bidirectional_states(layer, inputs, lengths), bidirectional_states(layer, other, lengths))


def test_a_gradient_costs_no_tensor_as_large_as_the_batch_for_every_step() -> None:
    layer = made(nn.LSTM, 0)
    inputs = torch.randn(8, 64, 5, dtype=torch.float64, requires_grad=True)
    lengths = torch.arange(57, 65)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        bidirectional_states(layer, inputs, lengths).sum().backward()
    names = {event.key: event.count for event in profile.key_averages()}
    assert names.get("aten::slice_backward", 0) < 8, "packed sequences have one per step and direction"
