"""Variants under a bidirectional LSTM: each prefix, read from either end, once however many variants begin with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from lightning_attn.ops.randomness import mix
from lightning_attn.perturbation.keys import KeyFastPath, SharedVectors, Variants
from lightning_attn.perturbation.signatures import OWNER, distinct


class PrefixKeys(KeyFastPath):
    """A state of one direction depends on what that direction has read, so equal beginnings share their states.

    The states of all variants form a forest: a node is a beginning, its parent the beginning without the last word.
    Level by level, each node continues from its parent. Two variants that lack one word each share everything up to
    the first of the two, and the text itself with both, which halves the work of leave-one-out; the products of words
    with the input weights are made once per text.

    Args:
        lstm: One bidirectional layer.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        self.lstm = lstm

    @staticmethod
    def supports(module: nn.Module) -> bool:
        """Whether the module is an LSTM whose arithmetic is written here."""
        return (
            type(module) is nn.LSTM
            and module.num_layers == 1
            and module.bidirectional
            and module.bias
            and module.proj_size == 0
        )

    @override
    def keys(self, embeddings: Tensor, variants: Variants) -> SharedVectors:
        places = variants.present.flatten().nonzero().squeeze(-1)
        count, size = len(places), self.lstm.hidden_size
        signatures, level = self._beginnings(variants, places)
        first, which = distinct(signatures)
        # Nodes go by level, and within a level by direction, so that a step works on two blocks.
        block = 2 * level[first] + (first >= count)
        order = block.argsort(stable=True)
        node = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))[which]
        first, block = first[order], block[order]
        direction = block % 2
        # The word before is the one to the left for the forward direction, to the right for the backward one.
        parent = node[(first - 1 + 2 * direction).clamp(0, 2 * count - 1)]
        word = 2 * variants.places.flatten()[places][first % count] + direction
        states = self._states(self._inputs(embeddings), word, parent, torch.bincount(block).tolist())
        # The last row is for positions where a variant has nothing.
        table = states.new_zeros(count + 1, 2 * size)
        torch.index_select(states, 0, node.view(2, count).t().flatten(), out=table[:count].view(2 * count, size))
        rows = torch.full_like(variants.source, count)
        rows.view(-1)[places] = torch.arange(count, device=rows.device)
        return SharedVectors(table, rows)

    def _beginnings(self, variants: Variants, places: Tensor) -> tuple[Tensor, Tensor]:
        """What each direction has read at each of N positions: a number for it, and how many positions before this.

        Args:
            variants: What to read.
            places: The positions that are present, row by row, in ``R * L``, shape ``(N,)``.

        Returns:
            Two of shape ``(2 * N,)``, int64, forward first.
        """
        length = variants.present.shape[1]
        column, row = places % length, places // length
        codes = mix(torch.arange(2 * length, device=places.device))
        read = codes[column + length * (variants.source.flatten()[places] == length)]
        ends = functional.pad(variants.present.sum(dim=1).cumsum(dim=0), (1, 0))
        sums = functional.pad(read.cumsum(dim=0), (1, 0))
        ranks = torch.arange(len(places), device=places.device)
        start, end = ends[:-1][row], ends[1:][row]
        # Odd multiples tell texts and directions apart.
        text = 2 * variants.row[row]
        forward = text * OWNER + sums[1:] - sums[start]
        backward = (text + 1) * OWNER + sums[end] - sums[:-1]
        return torch.cat([forward, backward]), torch.cat([ranks - start, end - 1 - ranks])

    def _inputs(self, embeddings: Tensor) -> Tensor:
        """Gates before the state is added, ``(T * (L + 1) * 2, 4 * H)``: each word's forward, then its backward."""
        weight = self._both("weight_ih_l0")
        bias = torch.cat(self._both("bias_ih_l0")) + torch.cat(self._both("bias_hh_l0"))
        return functional.linear(embeddings.flatten(0, 1), torch.cat(weight), bias).view(-1, 4 * self.lstm.hidden_size)

    def _both(self, name: str) -> tuple[Tensor, Tensor]:
        """A parameter of the forward and of the backward direction."""
        return getattr(self.lstm, name), getattr(self.lstm, f"{name}_reverse")

    def _states(self, inputs: Tensor, word: Tensor, parent: Tensor, blocks: list[int]) -> Tensor:
        """Hidden states of the nodes, shape ``(U, H)``.

        Args:
            inputs: See :meth:`_inputs`.
            word: Row in ``inputs`` of each node's last word, shape ``(U,)``.
            parent: Node of a level below, shape ``(U,)``; any at level 0.
            blocks: Number of nodes of each level and direction, forward first.
        """
        weights = [weight.t() for weight in self._both("weight_hh_l0")]
        states = inputs.new_empty(len(word), self.lstm.hidden_size)
        below, start, cells = 0, 0, states
        for forward, backward in zip(blocks[::2], blocks[1::2], strict=True):
            here = slice(start, start + forward + backward)
            gates = inputs.index_select(0, word[here])
            if start:
                before = states.index_select(0, parent[here])
                gates[:forward].addmm_(before[:forward], weights[0])
                gates[forward:].addmm_(before[forward:], weights[1])
            entrance, forgetting, candidate, exit_ = gates.chunk(4, dim=1)
            new = entrance.sigmoid_().mul_(candidate.tanh_())
            cells = (
                torch.addcmul(new, forgetting.sigmoid_(), cells.index_select(0, parent[here] - below)) if start else new
            )
            torch.mul(exit_.sigmoid_(), cells.tanh(), out=states[here])
            below, start = start, here.stop
        return states
