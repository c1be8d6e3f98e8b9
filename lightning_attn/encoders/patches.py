"""Patches of a picture to keys, which see the picture, and values, which see the patch: `PatchEncoder`."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_attn.errors import InputError
from lightning_attn.types import Batch, DataSchema


class PatchEncoder(nn.Module):
    """A convolutional network over the grid of patches makes the keys; each patch by itself makes its value.

    For the keys, the patches there are are laid on an empty picture: one that is missing is blank paper, so that a
    removed patch looks like one without ink. Every layer sees two patches further in each direction, three of them all
    of a digit and beyond. With ``values="local"`` a value depends on the pixels and the place of its patch alone; with
    ``values="contextual"`` it is the key, and can carry the whole picture.

    Args:
        size: H, numbers per key and per value.
        channels: Channels between the layers of the keys.
        layers: Convolutions 5 x 5 over the grid, at least 1.
        values: ``local`` or ``contextual``.

    Raises:
        InputError: A number is below 1.
    """

    def __init__(
        self, size: int = 64, channels: int = 32, layers: int = 3, values: Literal["local", "contextual"] = "local"
    ) -> None:
        super().__init__()
        if min(size, channels, layers) < 1:
            raise InputError(
                f"PatchEncoder needs size, channels and layers of at least 1, got {size}, {channels} and {layers}."
            )
        self.size = size
        self.channels = channels
        self.layers = layers
        self.values = values

    def make_layers(self, schema: DataSchema) -> None:
        """Create the layers for patches of this size in a picture of this grid.

        Raises:
            InputError: The data are no patches of a picture.
        """
        if schema.grid is None or schema.feature_shape is None:
            raise InputError(
                "PatchEncoder reads patches of a picture, but the data have none: give it data such as "
                "DigitPairsDataModule, or take another network."
            )
        self.schema = schema
        pixels = math.prod(schema.feature_shape) - 2
        widths = [pixels, *[self.channels] * (self.layers - 1), self.size]
        self.context = nn.Sequential()
        for before, after in itertools.pairwise(widths):
            self.context.extend([nn.Conv2d(before, after, 5, padding=2), nn.ReLU()])
        if self.values == "local":
            self.pixels = nn.Linear(pixels, self.size)
            self.place = nn.Embedding(math.prod(schema.grid) + 1, self.size)
            self.value = nn.Linear(self.size, self.size)

    def forward(self, pixels: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys and values, each ``(B, L, H)``, or ``(N, H)`` if the batch is packed.

        Args:
            pixels: Shape ``(B, L, P)``, or ``(N, P)``; places are read from the batch.
            batch: Says where patches stand, in the batch and in the picture.
        """
        cell = self.schema.cell(batch.inputs)
        if not batch.packed:
            cell = cell.masked_fill(~batch.valid, 0)
        keys = self._keys(pixels, cell, batch)
        if self.values == "contextual":
            return keys, keys
        hidden = (self.pixels(pixels) + self.place(cell)).relu()
        return keys, torch.tanh(self.value(hidden))

    def value_path(self) -> list[nn.Module]:
        """Modules that the values depend on: all, unless values are local."""
        return [self] if self.values == "contextual" else [self.pixels, self.place, self.value]

    def _keys(self, pixels: Tensor, cell: Tensor, batch: Batch) -> Tensor:
        """What the network over the grid says at each patch; 0 for one without a place."""
        assert self.schema.grid is not None
        rows, columns = self.schema.grid
        cells = rows * columns
        # Each picture has a cell 0 beside it, for what has no place in it.
        bags = batch.at_instances(torch.arange(len(batch), device=cell.device)[:, None].expand_as(batch.valid))
        where = (bags * (cells + 1) + cell).flatten()
        canvas = pixels.new_zeros(len(batch) * (cells + 1), pixels.shape[-1])
        canvas = canvas.index_add(0, where, pixels.reshape(len(where), -1))
        grid = canvas.view(len(batch), cells + 1, -1)[:, 1:].transpose(1, 2)
        seen = self.context(grid.reshape(len(batch), -1, rows, columns)).flatten(2).transpose(1, 2)
        seen = torch.cat([torch.zeros_like(seen[:, :1]), seen], dim=1).flatten(0, 1)
        return seen.index_select(0, where).view(*cell.shape, self.size)
