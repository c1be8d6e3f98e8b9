"""What all networks around whole models of the Hugging Face Hub have in common: `TransformerModel`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from lightning_attn.errors import InputError
from lightning_attn.hub.models import HubModel
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.transformer.self_attention import Attend
from lightning_attn.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformerModel(HubModel, AttentionNetwork):
    """A whole model, untouched, whose self-attention can be looked at and taken charge of in one forward pass.

    What explains it (``attribution/transformer``) knows no more of it than this. Its ``logits`` have one column for
    everything that can be answered: a class, or a span of the text.
    """

    model: PreTrainedModel
    _modules_of_layers: list[str]
    _longest: int

    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings of the model, shape ``(B, L, E)``; it adds positions to them later."""
        return cast(Tensor, self.model.get_input_embeddings()(batch.inputs))

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Not possible: the model has its own.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{self.name_or_path!r} has word embeddings of its own: leave data.init_args.word_vectors out."
        )

    @abstractmethod
    def run(self, embeddings: Tensor, batch: Batch, attend: Attend | None = None) -> Tensor:
        """Logits, shape ``(B, C)``, of the whole model, with ``attend`` in charge of its self-attention.

        Args:
            embeddings: Word embeddings, shape ``(B, L, E)``.
            batch: B texts.
            attend: None leaves it to the model.

        Raises:
            InputError: The batch is longer than the model can read.
        """

    @abstractmethod
    def answer_rows(self, batch: Batch, target: Tensor) -> Tensor:
        """How often each position is read for an answer, shape ``(B, L)``: at the classified position, or at both ends.

        Args:
            batch: B texts.
            target: The explained column of the logits, shape ``(B,)``.
        """

    @abstractmethod
    def reading_rows(self, batch: Batch) -> Tensor:
        """Shares of the positions that an answer may be read from, whatever it is, shape ``(B, L)``; they sum to 1."""

    @property
    def base_model(self) -> nn.Module:
        """Embeddings, layers and pooler."""
        return cast(nn.Module, self.model.base_model)

    @property
    def max_length(self) -> int:
        """Most tokens that the model can read, special ones included."""
        return self._longest

    @property
    def depth(self) -> int:
        """Number of layers of the model."""
        return int(self.model.config.num_hidden_layers)

    @property
    def heads_per_layer(self) -> int:
        """Number of attention heads of each layer."""
        return int(self.model.config.num_attention_heads)

    @property
    def self_attention(self) -> list[nn.Module]:
        """The model's self-attention module of every layer; several layers may share one."""
        return [self.model.get_submodule(name) for name in self._modules_of_layers]
