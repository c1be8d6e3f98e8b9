"""Pictures in patches: `PatchEncoder` makes keys that see the picture, `PictureCNN` reads it as a whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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
        cell = cells_of(batch, self.schema)
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
        canvas, where = laid_out(pixels, cell, batch, rows * columns)
        grid = canvas.transpose(1, 2)
        seen = self.context(grid.reshape(len(batch), -1, rows, columns)).flatten(2).transpose(1, 2)
        seen = torch.cat([torch.zeros_like(seen[:, :1]), seen], dim=1).flatten(0, 1)
        return seen.index_select(0, where).view(*cell.shape, self.size)


class PictureCNN(nn.Module):
    """A convolutional network over the pixels of a picture that comes in patches; what is missing is blank paper.

    Two convolutions 3 x 3, each with a pooling 2 x 2 after it, a third one, and a linear layer.

    Args:
        size: H, numbers per picture.
        channels: Of the three convolutions.

    Raises:
        InputError: A number is below 1, or there are not three channels.
    """

    def __init__(self, size: int = 64, channels: Sequence[int] = (16, 32, 32)) -> None:
        super().__init__()
        if len(channels) != 3 or min(size, *channels) < 1:
            raise InputError(
                f"PictureCNN needs a size and three channels of at least 1, got {size} and {list(channels)}."
            )
        self.size = size
        self.channels = list(channels)

    def make_layers(self, schema: DataSchema) -> None:
        """Create the layers for pictures of this size.

        Raises:
            InputError: The data are no square patches of a picture of at least 4 x 4 pixels.
        """
        if schema.grid is None or schema.feature_shape is None:
            raise InputError(
                "PictureCNN reads patches of a picture, but the data have none: give it data such as "
                "DigitPairsDataModule, or take another network."
            )
        self.schema = schema
        self.patch = math.isqrt(math.prod(schema.feature_shape) - 2)
        height, width = (side * self.patch for side in schema.grid)
        if self.patch**2 != math.prod(schema.feature_shape) - 2 or min(height, width) < 4:
            raise InputError(
                f"PictureCNN needs square patches and a picture of at least 4 x 4 pixels, but the patches have "
                f"{math.prod(schema.feature_shape) - 2} pixels in a grid of {schema.grid[0]} x {schema.grid[1]}."
            )
        first, second, third = self.channels
        self.layers = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.MaxPool2d(2),  # before ReLU it gives the same, and leaves a quarter of the numbers to it
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(third * (height // 4) * (width // 4), self.size),
            nn.ReLU(),
        )

    def forward(self, pixels: Tensor, batch: Batch) -> Tensor:
        """What it makes of each picture, shape ``(B, H)``.

        Args:
            pixels: Shape ``(B, L, P)``, or ``(N, P)`` if the batch is packed; places are read from the batch.
            batch: Says where patches stand, in the batch and in the picture.
        """
        # The one channel is the innermost dimension, which on a CPU makes all of the layers twice as fast.
        picture = self.picture(pixels, batch)[..., None].permute(0, 3, 1, 2)
        return self.layers(picture)  # type: ignore[no-any-return]

    def picture(self, pixels: Tensor, batch: Batch) -> Tensor:
        """The pictures, shape ``(B, height, width)``; arguments as for :meth:`forward`."""
        assert self.schema.grid is not None
        rows, columns = self.schema.grid
        canvas, _ = laid_out(pixels, cells_of(batch, self.schema), batch, rows * columns)
        parts = canvas.view(len(batch), rows, columns, self.patch, self.patch).transpose(2, 3)
        return parts.reshape(len(batch), rows * self.patch, columns * self.patch)


def cells_of(batch: Batch, schema: DataSchema) -> Tensor:
    """Cell of each patch, see :meth:`DataSchema.cell`, 0 on padding; shape ``(B, L)``, or ``(N,)`` if packed."""
    cell = schema.cell(batch.inputs)
    return cell if batch.packed else cell.masked_fill(~batch.valid, 0)


def laid_out(pixels: Tensor, cell: Tensor, batch: Batch, cells: int) -> tuple[Tensor, Tensor]:
    """Patches laid on empty pictures.

    Args:
        pixels: Shape ``(B, L, P)``, or ``(N, P)`` if the batch is packed.
        cell: From :func:`cells_of`.
        batch: Says which picture each patch is of.
        cells: Number of cells of a picture.

    Returns:
        Pixels of each cell, shape ``(B, cells, P)``; and where each patch went, counted over pictures of ``cells + 1``
        cells, shape ``(B * L,)`` or ``(N,)``: each picture has a cell 0 beside it, for what has no place in it.
    """
    bags = batch.at_instances(torch.arange(len(batch), device=cell.device)[:, None].expand_as(batch.valid))
    where = (bags * (cells + 1) + cell).flatten()
    canvas = pixels.new_zeros(len(batch) * (cells + 1), pixels.shape[-1])
    canvas = canvas.index_add(0, where, pixels.reshape(len(where), -1))
    return canvas.view(len(batch), cells + 1, -1)[:, 1:], where
