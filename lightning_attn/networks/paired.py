"""A text read under a query: natural language inference, question answering."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from lightning_attn.attention.query import AdditiveQueryAttention, QueryAttention
from lightning_attn.attention.scorers import KeylessAttention
from lightning_attn.encoders.base import Encoder
from lightning_attn.encoders.bilstm import BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.classifiers import PairClassifier
from lightning_attn.types import Batch, DataSchema


class PairedNetwork(AttentionNetwork):
    """``head( sum_i a_i v_i, z )``: attention over one text, given the vector ``z`` of another, the query.

    The query has an encoder and word embeddings of its own, over the vocabulary that both texts share. Only the text
    is attended, perturbed and explained; the query stays as it is, and :meth:`read_query` encodes it once.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186.

    Args:
        encoder: The text's tokens to keys and values; None means ``BiLSTM()``.
        query_encoder: The query's tokens to one vector, see :meth:`Encoder.summarise`; None means ``BiLSTM()``.
        attention: Keys and query to weights; None means ``AdditiveQueryAttention()``.
        head: Pooled value and query to logits; None means ``PairClassifier()``.

    Raises:
        InputError: ``query_encoder`` has local values, which a query has no use for.
    """

    attention: QueryAttention | KeylessAttention

    def __init__(
        self,
        encoder: Encoder | None = None,
        query_encoder: Encoder | None = None,
        attention: QueryAttention | KeylessAttention | None = None,
        head: PairClassifier | None = None,
    ) -> None:
        super().__init__()
        if query_encoder is not None and query_encoder.local is not None:
            raise InputError("The query_encoder makes no values: leave its values at contextual.")
        self.encoder = encoder or BiLSTM()
        self.query_encoder = query_encoder or BiLSTM()
        self.attention = attention or AdditiveQueryAttention()
        self.head = head or PairClassifier()

    def make_layers(self, schema: DataSchema) -> None:
        """Create embeddings, scorer and head for this data.

        Raises:
            InputError: The data have no queries.
        """
        if schema.query_vocabulary_size is None:
            raise InputError(
                "PairedNetwork reads a text and a query, but the data have no queries: name their column "
                "(data.init_args.query), or use PooledNetwork for single texts."
            )
        self.encoder.make_layers(schema)
        self.query_encoder.make_layers(dataclasses.replace(schema, vocabulary_size=schema.query_vocabulary_size))
        self.attention.make_layers(self.encoder.size, self.query_encoder.size)
        self.head.make_layers(self.encoder.size, self.query_encoder.size, schema.num_classes)

    def read_query(self, batch: Batch) -> Batch:
        """The batch with the query's vector, shape ``(B, Q)``; the batch itself if it has one.

        Raises:
            InputError: The batch has no queries.
        """
        if batch.query_vector is not None:
            return batch
        if batch.query is None or batch.query_valid is None:
            raise InputError("PairedNetwork reads a text and a query, but the batch has no queries.")
        asked = batch.replace(
            inputs=batch.query, valid=batch.query_valid, special=torch.zeros_like(batch.query_valid), evidence=None
        )
        return batch.replace(query_vector=self.query_encoder.summarise(asked))

    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings of the text, shape ``(B, L, E)``."""
        return self.encoder.embed(batch)

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys and values of the text, each ``(B, L, H)``."""
        keys, values = self.encoder(embeddings, batch)
        return keys, values

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` of the attention-weighted sum of the values and the query."""
        pooled = torch.einsum("bl,blh->bh", attention, values)
        return self.head(pooled, self.read_query(batch).query_vector)  # type: ignore[no-any-return]

    def classify_many(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, V, C)`` in one product, without repeating the values."""
        if type(self).classify is not PairedNetwork.classify:
            return super().classify_many(values, attention, batch)
        query = self.read_query(batch).query_vector
        assert query is not None
        many = query.repeat_interleave(attention.shape[1], dim=0)
        logits: Tensor = self.head((attention @ values).flatten(0, 1), many)
        return logits.view(*attention.shape[:2], logits.shape[-1])

    def value_path(self) -> list[nn.Module]:
        """The encoder's value path, the query's encoder, which the head reads too, and the head."""
        return [*self.encoder.value_path(), self.query_encoder, self.head]

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Copy pretrained word vectors ``(V, E)`` into both embeddings."""
        self.encoder.load_word_vectors(vectors)
        self.query_encoder.load_word_vectors(vectors)
