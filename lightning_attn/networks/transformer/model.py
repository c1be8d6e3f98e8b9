"""What all networks around whole models of the Hugging Face Hub have in common: `TransformerModel`."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.hub.models import HubModel, longest
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.transformer.parts import has_known_parts
from lightning_attn.networks.transformer.self_attention import Attend, Calls, own_attention
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformerModel(HubModel, AttentionNetwork):
    """A whole model, untouched, whose self-attention can be looked at and taken charge of in one forward pass.

    What explains it (``attribution/transformer``) knows no more of it than this. Its ``logits`` have one column for
    everything that can be answered: a class, or a span of the text.
    """

    model: PreTrainedModel
    gradient_checkpointing: bool
    _modules_of_layers: list[str]
    _longest: int

    @override
    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings of the model, shape ``(B, L, E)``; it adds positions to them later."""
        return cast(Tensor, self.model.get_input_embeddings()(batch.inputs))

    @override
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

    @abstractmethod
    def _read_trial(self, batch: Batch, calls: Calls) -> tuple[Tensor, Tensor] | None:
        """Answers to the first five tokens of a text of eight, read alone and padded; None if ``calls`` are too few.

        Args:
            batch: The whole text, shape ``(1, 8)``.
            calls: To be in charge of self-attention in one forward pass.

        Raises:
            InputError: The model does not do what the network relies on.
        """

    def _adopt(self, model: PreTrainedModel) -> None:
        """Put a loaded model in place, once it was tried out.

        Raises:
            InputError: The model cannot be used here.
        """
        if not getattr(model, "_supports_attention_backend", False) or not has_known_parts(model):
            raise self._unusable(model.config.model_type, "which does not call registered attention functions")
        if self.gradient_checkpointing:
            # The second time is after the forward pass, when the model has its own attention function again.
            self._checkpoint_gradients(model, lambda: own_attention(model))
        self._longest = longest(model)
        self.model = model
        self._try_out()
        self.config = json.loads(model.config.to_json_string(use_diff=False))
        self.train(self.training)  # loaded models come in evaluation mode, and would stay in it (no dropout)

    def _try_out(self) -> None:
        """Read a few tokens alone and padded.

        Raises:
            InputError: The model does not do what the network relies on.
        """
        kind = self.model.config.model_type
        words = cast(nn.Embedding, self.model.get_input_embeddings())
        ids = torch.arange(8, device=words.weight.device)[None] % words.num_embeddings
        row, valid = torch.zeros_like(ids[:, 0]), torch.ones_like(ids, dtype=torch.bool)
        calls = Calls()
        with torch.inference_mode(False), torch.no_grad(), evaluating(self):
            try:
                answers = self._read_trial(Batch(ids, valid, ~valid, row, row), calls)
            except InputError:
                raise
            except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
                raise self._unusable(kind, f"which fails on a text ({' '.join(str(error).split())})") from error
        if answers is None or len(calls.modules) != self.depth:
            raise self._unusable(kind, "which does not call registered attention functions in every layer")
        if not torch.allclose(*answers, atol=1e-3, rtol=1e-3):
            raise self._unusable(kind, "whose answer changes when a text is padded")
        names = {module: name for name, module in self.model.named_modules()}
        self._modules_of_layers = [names[module] for module in calls.modules]

    @property
    @override
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
