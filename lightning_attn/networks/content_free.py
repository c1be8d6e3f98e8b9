"""A network whose head can learn nothing but what travels in the attention weights: `ContentFreeNetwork`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.attention.base import Attention
from lightning_attn.encoders.base import Encoder
from lightning_attn.errors import InputError
from lightning_attn.networks.classifiers import Classifier
from lightning_attn.networks.pooled import PooledNetwork
from lightning_attn.types import AttentionOutput, Batch, DataSchema


class ContentFreeNetwork(PooledNetwork):
    """Reads the text to attend, but attends to default tokens only, which are the same in every text.

    The encoder reads text and default tokens; their keys, which see the text, are scored; the head gets the weighted
    sum of k vectors that belong to the default tokens. Whatever it predicts better than the label frequencies has
    travelled in the weights: a combinatorial shortcut and nothing else, in its purest form. The values are a table of
    this network, so that no encoder can smuggle anything into them, and a frozen value path leaves the encoder free.

    Source: in the spirit of Bai et al., KDD 2021, https://arxiv.org/abs/2006.05656; reconstructed.

    Args:
        encoder: See :class:`PooledNetwork`; its values are not used. None means ``BiLSTM()``.
        attention: See :class:`PooledNetwork`.
        head: See :class:`PooledNetwork`.
    """

    content_free = True

    def __init__(
        self, encoder: Encoder | None = None, attention: Attention | None = None, head: Classifier | None = None
    ) -> None:
        super().__init__(encoder, attention, head)
        if self.attention.attend_special:
            raise InputError("ContentFreeNetwork attends to default tokens and nothing else; leave attend_special out.")

    def make_layers(self, schema: DataSchema) -> None:
        """Create embedding, scorer, the default tokens' values and the head.

        Raises:
            InputError: The texts have no default tokens to choose between.
        """
        if schema.default_tokens < 2:
            raise InputError(
                f"ContentFreeNetwork needs texts with at least 2 default tokens, and these have "
                f"{schema.default_tokens}; set data.init_args.processor to DefaultTokens with k: 4."
            )
        super().make_layers(schema)
        self.defaults = nn.Embedding(schema.default_tokens, self.encoder.size)

    def attendable(self, batch: Batch) -> Batch:
        """The batch with everything but the default tokens special."""
        return batch.replace(special=batch.valid & (self._default_number(batch) < 0))

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys of the encoder; values that are one vector per default token and 0 elsewhere, shape ``(B, L, H)``."""
        keys, _ = self.encoder(embeddings, batch)
        number = self._default_number(batch)
        values = self.defaults(number.clamp(min=0)) * (number >= 0)[..., None]
        return keys, values.to(keys.dtype)

    @override
    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, attention: Tensor | None = None
    ) -> AttentionOutput:
        return super().forward(self.attendable(batch), embeddings=embeddings, attention=attention)

    def value_path(self) -> list[nn.Module]:
        """The default tokens' values and the head; the encoder makes keys only."""
        return [self.defaults, self.head]

    def _default_number(self, batch: Batch) -> Tensor:
        """Which default token stands at each position, below 0 where none does; shape ``(B, L)``, int64."""
        return torch.where(batch.valid, self.schema.default_number(batch.inputs), -1)
