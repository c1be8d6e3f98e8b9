"""Attention on the embeddings, before a contextual encoder reads them: `MaskedInputNetwork`."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_attn.attention.base import Attention
from lightning_attn.attention.scorers import AdditiveAttention
from lightning_attn.encoders.base import Encoder
from lightning_attn.encoders.bilstm import BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.classifiers import Classifier, LinearClassifier
from lightning_attn.types import Batch, DataSchema


class MaskedInputNetwork(AttentionNetwork):
    """``head(pool(reader(m_i e_i)))``: a reader that knows context, but only of what the attention lets through.

    The third place for the mask, beside local values, which know no context, and contextual ones, which have seen all
    of the text before the mask comes. The encoder's keys decide the weights; each embedding is multiplied by its weight
    times the number of positions that have any, so that even weights, over the text or over a selection, leave
    embeddings as they are.

    Source: where REAL-X and L2X apply their masks; for soft weights ours.

    Args:
        encoder: Makes keys, and owns the embedding; its values are not used. None means ``BiLSTM()``.
        reader: Reads masked embeddings of the encoder's ``embedding_size``; None means ``BiLSTM()``.
        attention: Keys to weights; None means ``AdditiveAttention()``.
        head: Pooled states to logits; None means ``LinearClassifier()``.

    Raises:
        InputError: Encoder and reader have embeddings of different sizes.
    """

    attention: Attention

    def __init__(
        self,
        encoder: Encoder | None = None,
        reader: Encoder | None = None,
        attention: Attention | None = None,
        head: Classifier | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder or BiLSTM()
        self.reader = reader or BiLSTM()
        if self.encoder.embedding_size != self.reader.embedding_size:
            raise InputError(
                f"The reader reads the encoder's embeddings of {self.encoder.embedding_size} numbers, but has an "
                f"embedding_size of {self.reader.embedding_size}; give both the same."
            )
        self.attention = attention or AdditiveAttention()
        self.head = head or LinearClassifier()

    def make_layers(self, schema: DataSchema) -> None:
        """Create embedding, scorer and head; the reader has no embedding of its own."""
        self.encoder.make_layers(schema)
        self.attention.make_layers(self.encoder.size)
        self.head.make_layers(self.reader.size, schema.num_classes)

    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings, shape ``(B, L, E)``."""
        return self.encoder.embed(batch)

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys, shape ``(B, L, K)``, and as values the embeddings, shape ``(B, L, E)``."""
        embeddings = self.encoder.dropout(embeddings)
        return self.encoder.contextualise(embeddings, batch), embeddings

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` of what the reader makes of masked embeddings: an encoder pass, unlike elsewhere."""
        weighted = (attention > 0).sum(dim=-1, keepdim=True)
        masked = values * (attention * weighted)[..., None]
        states = self.reader.contextualise(masked.to(values.dtype), batch)
        return self.head(self.reader.pool(states, batch.valid))  # type: ignore[no-any-return]

    def value_path(self) -> list[nn.Module]:
        """Embedding, reader and head; of the encoder, only what makes keys is left to the scorer."""
        return [self.encoder.embedding, self.encoder.dropout, self.reader, self.head]

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Copy pretrained word vectors ``(V, E)`` into the encoder's embedding."""
        self.encoder.load_word_vectors(vectors)
