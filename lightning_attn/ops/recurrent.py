"""Bidirectional recurrent layers over texts of different lengths: `bidirectional_states`, `last_states`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def bidirectional_states(layer: nn.LSTM | nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    """Hidden states of both directions; what stands behind a text is never read.

    Packed sequences would do, but on a CPU their gradient is slow: every step is a slice of the whole batch, and the
    gradient of every slice is a tensor as large as the batch, so that a backward pass costs the square of the length.
    Where gradients are recorded there, each direction runs over the padded batch by itself, the second over texts that
    are turned round: padding then comes last for both.

    Args:
        layer: One bidirectional layer with H units per direction, ``batch_first``.
        inputs: Shape ``(B, L, E)``.
        lengths: Positions of each text, at least 1, shape ``(B,)``.

    Returns:
        Shape ``(B, L, 2 * H)``, 0 behind each text.
    """
    if inputs.device.type == "cpu" and torch.is_grad_enabled():
        return _padded(layer, inputs, lengths)
    packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=inputs.shape[1])
    return states


def last_states(states: Tensor, lengths: Tensor) -> Tensor:
    """Where each direction ends: forward at the text's last position, backward at its first; ``(B, 2 * H)``.

    Args:
        states: Those of :func:`bidirectional_states`, shape ``(B, L, 2 * H)``.
        lengths: Shape ``(B,)``; 0 counts as 1.
    """
    forward, backward = states.chunk(2, dim=-1)
    rows = torch.arange(len(states), device=states.device)
    return torch.cat([forward[rows, (lengths - 1).clamp(min=0)], backward[:, 0]], dim=-1)


def _padded(layer: nn.LSTM | nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    place = torch.arange(inputs.shape[1], device=inputs.device)
    inside = place < lengths[:, None]
    turned = torch.where(inside, lengths[:, None] - 1 - place, place)[..., None]

    def turn(values: Tensor) -> Tensor:
        return values.gather(1, turned.expand_as(values))

    forward, backward = (tuple(weights) for weights in layer.all_weights)
    states = torch.cat([_one_way(layer, inputs, forward), turn(_one_way(layer, turn(inputs), backward))], dim=-1)
    return states.masked_fill(~inside[..., None], 0.0)


def _one_way(layer: nn.LSTM | nn.GRU, inputs: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    start = inputs.new_zeros(1, len(inputs), layer.hidden_size)
    if isinstance(layer, nn.LSTM):
        return torch.lstm(inputs, (start, start), weights, layer.bias, 1, 0.0, layer.training, False, True)[0]
    return torch.gru(inputs, start, weights, layer.bias, 1, 0.0, layer.training, False, True)[0]
