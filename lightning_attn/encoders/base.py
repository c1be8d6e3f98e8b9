"""Tokens to keys and values: the base class of the word-embedding encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_attn.errors import InputError
from lightning_attn.types import Batch, DataSchema


class Encoder(nn.Module, ABC):
    """Embeds token ids and gives every position a key and a value.

    Keys always come from :meth:`contextualise`. With ``values="contextual"`` so do the values: every position can
    then carry the whole text, and no mitigation of the attention can make the weights mean much. With
    ``values="local"`` value i is ``tanh`` of a projection of embedding i alone.

    Args:
        embedding_size: E, numbers per token.
        size: H, numbers per key and per value.
        values: ``contextual`` or ``local``.
        dropout: Share of embedding numbers zeroed while training, in [0, 1).
    """

    #: Whether the layers are loaded, and not made.
    pretrained: bool = False

    def __init__(
        self,
        embedding_size: int,
        size: int,
        values: Literal["contextual", "local"] = "contextual",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.size = size
        self.values = values
        self.dropout = nn.Dropout(dropout)
        self.local = nn.Linear(embedding_size, size) if values == "local" else None

    def make_layers(self, schema: DataSchema) -> None:
        """Create the embedding for the vocabulary.

        Raises:
            InputError: The data are not token ids.
        """
        if schema.vocabulary_size is None:
            raise InputError(f"{type(self).__name__} reads token ids, but the data are features of instances.")
        self.embedding = nn.Embedding(schema.vocabulary_size, self.embedding_size, padding_idx=schema.pad_id)
        # Torch starts at 1: words that are seen a few times then stay noise. On SST's validation split 0.1 is worth
        # four points of accuracy.
        with torch.no_grad():
            self.embedding.weight.mul_(0.1)

    @property
    def words(self) -> nn.Embedding:
        """The word embedding."""
        return self.embedding

    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings, shape ``(B, L, E)``."""
        return self.embedding(batch.inputs)  # type: ignore[no-any-return]

    @abstractmethod
    def contextualise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Keys, shape ``(B, L, H)``, from embeddings ``(B, L, E)``; padding must not change the valid positions."""

    def forward(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys and values, each ``(B, L, H)``, from embeddings ``(B, L, E)``."""
        embeddings = self.dropout(embeddings)
        keys = self.contextualise(embeddings, batch)
        return keys, keys if self.local is None else torch.tanh(self.local(embeddings))

    def summarise(self, batch: Batch) -> Tensor:
        """A whole text, such as a query, as one vector, shape ``(B, H)``, made of the keys; see :meth:`pool`."""
        return self.pool(self.contextualise(self.dropout(self.embed(batch)), batch), batch.valid)

    def pool(self, keys: Tensor, valid: Tensor) -> Tensor:
        """One vector per text, shape ``(B, H)``, from keys ``(B, L, H)``: their mean over ``valid`` ``(B, L)``."""
        weights = valid / valid.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("bl,blh->bh", weights.to(keys.dtype), keys)

    def value_path(self) -> list[nn.Module]:
        """Modules that the values depend on: all, unless values are local."""
        return [self] if self.local is None else [self.embedding, self.dropout, self.local]

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Copy pretrained word vectors ``(V, E)`` into the embedding; rows of NaN keep their random start.

        Raises:
            InputError: The vectors have another size than the embedding.
        """
        weight = self.embedding.weight
        if vectors.shape != weight.shape:
            raise InputError(
                f"The word vectors have {vectors.shape[1]} numbers each, but the encoder's embedding_size is "
                f"{self.embedding_size}; set model.init_args.network.init_args.encoder.init_args.embedding_size to "
                f"{vectors.shape[1]}."
            )
        present = ~vectors.isnan().any(dim=-1)
        with torch.no_grad():
            weight[present] = vectors[present].to(weight)
