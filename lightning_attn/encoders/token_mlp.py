"""Context-free encoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_attn.encoders.base import Encoder
from lightning_attn.types import Batch


class TokenMLP(Encoder):
    """``tanh(W e_i + b)``: every position sees its own token only, so pooling gives a weighted average of words.

    The published encoder has 128 units (Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186). Its values
    are local either way; ``values="local"`` gives them a projection of their own. A query is the mean of its words;
    the published mean counts padding as words, so that it depends on the batch, and ours does not.

    Args:
        embedding_size: See :class:`Encoder`.
        hidden_size: H, numbers per key.
        values: See :class:`Encoder`.
        dropout: See :class:`Encoder`.
    """

    def __init__(
        self,
        embedding_size: int = 128,
        hidden_size: int = 128,
        values: Literal["contextual", "local"] = "contextual",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding_size, hidden_size, values, dropout)
        self.projection = nn.Linear(embedding_size, hidden_size)

    def contextualise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Projected words, shape ``(B, L, H)``."""
        return torch.tanh(self.projection(embeddings))
