"""Bidirectional LSTM encoder."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lightning_attn.encoders.base import Encoder
from lightning_attn.ops.recurrent import bidirectional_states, last_states
from lightning_attn.types import Batch


class BiLSTM(Encoder):
    """One bidirectional LSTM layer; ``hidden_size`` numbers per direction, so keys have twice as many.

    The published encoder has 128 per direction and no dropout (Jain and Wallace, NAACL 2019,
    https://arxiv.org/abs/1902.10186).

    Args:
        embedding_size: See :class:`Encoder`.
        hidden_size: Numbers per direction.
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
        super().__init__(embedding_size, 2 * hidden_size, values, dropout)
        self.lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True, bidirectional=True)

    def contextualise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Hidden states of both directions, shape ``(B, L, H)``; padding is never read."""
        # An example that is all padding is read as one position, and its output is not valid.
        return bidirectional_states(self.lstm, embeddings, batch.valid.sum(dim=1).clamp(min=1))

    def pool(self, keys: Tensor, valid: Tensor) -> Tensor:
        """The last state of each direction, shape ``(B, H)``: forward at the text's own end, backward at its start."""
        return last_states(keys, valid.sum(dim=1))
