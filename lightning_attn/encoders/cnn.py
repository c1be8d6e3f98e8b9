"""Convolutional encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_attn.encoders.base import Encoder
from lightning_attn.errors import InputError
from lightning_attn.types import Batch


class CNN(Encoder):
    """Parallel convolutions with "same" padding and ReLU, concatenated.

    The published encoder has kernels 1, 3, 5, 7 with 32 filters each (Jain and Wallace, NAACL 2019,
    https://arxiv.org/abs/1902.10186). Padded positions are set to 0 first, so they read like the end of the text.

    Args:
        embedding_size: See :class:`Encoder`.
        filters: Filters per kernel width.
        kernel_sizes: Odd widths in positions.
        values: See :class:`Encoder`.
        dropout: See :class:`Encoder`.

    Raises:
        InputError: A kernel width is even, so that "same" padding would not be symmetric.
    """

    def __init__(
        self,
        embedding_size: int = 128,
        filters: int = 32,
        kernel_sizes: Sequence[int] = (1, 3, 5, 7),
        values: Literal["contextual", "local"] = "contextual",
        dropout: float = 0.0,
    ) -> None:
        if even := [width for width in kernel_sizes if width % 2 == 0]:
            raise InputError(f"kernel_sizes must be odd, got {even}.")
        super().__init__(embedding_size, filters * len(kernel_sizes), values, dropout)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(embedding_size, filters, width, padding=width // 2) for width in kernel_sizes
        )

    def contextualise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Filter responses, shape ``(B, L, H)``."""
        channels = embeddings.masked_fill(~batch.valid[..., None], 0.0).transpose(1, 2)
        return torch.cat([convolution(channels).relu() for convolution in self.convolutions], dim=1).transpose(1, 2)

    def pool(self, keys: Tensor, valid: Tensor) -> Tensor:
        """The largest response of each filter, shape ``(B, H)``; responses are never below 0."""
        return keys.masked_fill(~valid[..., None], 0.0).amax(dim=1)
