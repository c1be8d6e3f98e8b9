"""Encoder, attention pooling and head: the network of most experiments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attn.attention.base import Attention
from lightning_attn.attention.scorers import AdditiveAttention
from lightning_attn.encoders.base import Encoder
from lightning_attn.encoders.bilstm import BiLSTM
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.classifiers import Classifier, LinearClassifier
from lightning_attn.networks.scaling import ValueScaling
from lightning_attn.types import Batch, DataSchema


class PooledNetwork(AttentionNetwork):
    """``head( sum_i a_i v_i )``: one text or bag, one attention distribution.

    Args:
        encoder: Tokens to keys and values; None means ``BiLSTM()``.
        attention: Keys to weights; None means ``AdditiveAttention()``.
        head: Pooled value to logits; None means ``LinearClassifier()``.
        scaling: Scales of the values, such as ``LinTaSc``; None leaves them as they are.
    """

    attention: Attention

    def __init__(
        self,
        encoder: Encoder | None = None,
        attention: Attention | None = None,
        head: Classifier | None = None,
        scaling: ValueScaling | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder or BiLSTM()
        self.attention = attention or AdditiveAttention()
        self.head = head or LinearClassifier()
        self.scaling = scaling

    def make_layers(self, schema: DataSchema) -> None:
        """Create embedding, scorer and head for this data."""
        self.encoder.make_layers(schema)
        self.attention.make_layers(self.encoder.size)
        self.head.make_layers(self.encoder.size, schema.num_classes)
        if self.scaling is not None:
            self.scaling.build(schema, self.encoder.embedding_size)

    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings, shape ``(B, L, E)``."""
        return self.encoder.embed(batch)

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys and values, each ``(B, L, H)``."""
        keys, values = self.encoder(embeddings, batch)
        if self.scaling is not None:
            values = values * self.scaling(embeddings, batch)[..., None]
        return keys, values

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` of the attention-weighted sum of the values."""
        return self.head(torch.einsum("bl,blh->bh", attention, values))  # type: ignore[no-any-return]

    def classify_many(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, V, C)`` in one product, without repeating the values."""
        if type(self).classify is not PooledNetwork.classify:
            return super().classify_many(values, attention, batch)
        logits: Tensor = self.head((attention @ values).flatten(0, 1))
        return logits.view(*attention.shape[:2], logits.shape[-1])

    def value_path(self) -> list[nn.Module]:
        """The encoder's value path, the scales and the head."""
        scaling = [] if self.scaling is None else [self.scaling]
        return [*self.encoder.value_path(), *scaling, self.head]

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Copy pretrained word vectors ``(V, E)`` into the encoder's embedding."""
        self.encoder.load_word_vectors(vectors)
