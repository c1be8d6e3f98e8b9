"""An untouched Hugging Face classifier behind the contract of every network: `TransformerNetwork`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import deprecated, override

from lightning_attn.attention.multihead import HeadWeights
from lightning_attn.errors import InputError
from lightning_attn.hub.classifier import class_order, load_classifier, own_schema
from lightning_attn.hub.models import readable, silent
from lightning_attn.networks.transformer.classifying_row import (
    ClassifyingRow,
    ReplacedContext,
    ReplacedRows,
    RowAttend,
    RowChoice,
)
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.parts import above, below, without
from lightning_attn.networks.transformer.self_attention import Attend, Calls, own_attention
from lightning_attn.types import AttentionOutput, Batch, DataSchema

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from typing_extensions import Self

#: What the models call the projections that make queries and keys.
_SCORERS = ("query", "key", "q_lin", "k_lin")


class TransformerNetwork(TransformerModel):
    """``AutoModelForSequenceClassification`` as it is; its ``attention`` is the row of the classifying position.

    That row says how much the first position, which alone is classified, takes from every position: the mean over the
    chosen attention heads of the chosen layers. What is each attention head's own is in the values, as in
    :class:`~lightning_attn.networks.MultiHeadBagNetwork`: given other weights, each attention head follows them in
    proportion. With the last layer alone (the default) the values are what its attention heads multiply, and
    ``classify`` runs that layer for one position. With lower layers they are the states that enter the lowest of them,
    and ``classify`` runs the model from there.

    A mitigation acts on every chosen attention head by itself, inside self-attention. In
    :class:`~lightning_attn.mitigations.RandomPretraining` the scorer is the queries and keys of the chosen layers;
    where others use them too (attention heads that are not chosen, rows of lower layers) these change with it. ALBERT
    has one set of them for all layers, so there is no scorer to keep apart: use ``then: finetune``.

    Layers that are not chosen run the fused kernel, which keeps no weights. Texts are read by their word embeddings,
    where gradients and ablations act. Any encoder that calls registered attention functions and classifies its first
    position: BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, ALBERT, MiniLM. Others are refused by name.

    Example:
        >>> network = TransformerNetwork("bert-base-uncased", layers=[-1])  # doctest: +SKIP

    Args:
        name_or_path: Name of a model on the Hub, or a folder; one without a classifier gets a new one. If it has one,
            its class names decide the order of the classes, where they are those of the data.
        layers: Layers whose classifying rows are looked at: 1 is the lowest, -1 the highest.
        heads: Attention heads, from 0, of each of these layers; None means all.
        config: The model's configuration, plain values as in ``config.json``. Weights are not loaded then, but start at
            random: a checkpoint sets this, and brings the weights. None reads both from ``name_or_path``.
        gradient_checkpointing: Whether layers are computed a second time for their gradients instead of being kept:
            about a quarter slower, for long texts or large batches that do not fit otherwise. The same gradients. From
            the lowest layer that is looked at on, layers are kept all the same: a mitigation may draw in them.
    """

    attention: ClassifyingRow

    def __init__(
        self,
        name_or_path: str,
        layers: Sequence[int] = (-1,),
        heads: Sequence[int] | None = None,
        config: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.name_or_path = name_or_path
        self.layers = tuple(layers)
        self.heads = None if heads is None else tuple(heads)
        self.config = config
        self.gradient_checkpointing = gradient_checkpointing
        self.attention = ClassifyingRow()

    @classmethod
    def load(cls, name_or_path: str, layers: Sequence[int] = (-1,), heads: Sequence[int] | None = None) -> Self:
        """A network built with the classes and the vocabulary that the model itself has, in evaluation mode.

        Args:
            name_or_path: See :class:`TransformerNetwork`; a model without a classifier gets an untrained one.
            layers: See :class:`TransformerNetwork`.
            heads: See :class:`TransformerNetwork`.

        Raises:
            InputError: There is no such model, or it cannot be used here.
        """
        network = cls(name_or_path, layers, heads)
        network.build(own_schema(name_or_path, network._read_config())).eval()
        if network.new_head:
            warnings.warn(
                f"{name_or_path!r} has no classifier: what it predicts is by one that was drawn at random.",
                stacklevel=2,
            )
        return network

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        schema: DataSchema | None = None,
        layers: Sequence[int] = (-1,),
        heads: Sequence[int] | None = None,
    ) -> Self:
        """A network around a model at hand, which stays as it is and is shared, not copied.

        Args:
            model: An ``AutoModelForSequenceClassification``.
            schema: What the data are; None takes classes and vocabulary from the model.
            layers: See :class:`TransformerNetwork`.
            heads: See :class:`TransformerNetwork`.

        Raises:
            InputError: The model cannot be used here.
        """
        network = cls(model.config._name_or_path or type(model).__name__, layers, heads)
        network.__dict__["_model_at_hand"] = model  # no part yet
        training = model.training
        network.build(schema or own_schema(network.name_or_path, model.config))
        network.train(training)
        return network

    @classmethod
    @deprecated("TransformerNetwork.of is called from_model now: rename it.")
    def of(
        cls,
        model: PreTrainedModel,
        schema: DataSchema | None = None,
        layers: Sequence[int] = (-1,),
        heads: Sequence[int] | None = None,
    ) -> Self:
        """The name of :meth:`from_model` in 0.1.0."""
        return cls.from_model(model, schema, layers, heads)

    _model_at_hand: PreTrainedModel | None = None

    @override
    def make_layers(self, schema: DataSchema) -> None:
        """Load the model, or make it from ``config``, and try it out.

        Raises:
            InputError: There is no such model; it cannot be used here; it has no such layer or attention head; its
                classes are others; or the data were split by another tokenizer.
        """
        if schema.spans:
            raise InputError("TransformerNetwork gives classes, but the data have questions: use TransformerQANetwork.")
        size = self._vocabulary(schema)
        if schema.query_vocabulary_size is not None:
            raise InputError(
                "TransformerNetwork reads a text and its query as one pair, but the data keep them apart: set "
                "data.init_args.processor to HuggingFacePairProcessor."
            )
        model = self.__dict__.pop("_model_at_hand", None)
        with silent():
            if model is None:
                config = self._read_config()
            else:
                config = model.config
                decodes = config.is_encoder_decoder or getattr(config, "is_decoder", False)
                self._check_kind(config.model_type, decodes)
            self._check_vocabulary(config, size)
            self.choice = RowChoice.from_config(self.name_or_path, config, self.layers, self.heads)
            model = load_classifier(self, config, schema) if model is None else model
        self._order = class_order(self.name_or_path, model.config, schema)
        self._adopt(model)

    @override
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores of the chosen attention heads, ``(B, L, K)``, and values, ``(B, L, H)``."""
        weights, values, _ = self._run(embeddings, batch)
        return weights.scores.transpose(1, 2), values

    @override
    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, attention: Tensor | None = None
    ) -> AttentionOutput:
        """As always; one attention head after the other in ``heads``, the layers ascending.

        Raises:
            InputError: The batch is longer than the model can read.
        """
        embeddings = self.embed(batch) if embeddings is None else embeddings
        heads, values, logits = self._run(embeddings, batch)
        if attention is None:
            attention = heads.observed.mean(dim=1)
        else:
            logits = self.classify(values, attention, batch)
        learned, keys = heads.learned.mean(dim=1), heads.scores.transpose(1, 2)
        return AttentionOutput(
            logits, attention, learned, heads.mean_scores(), values, heads.observed, heads.scores, keys, embeddings
        )

    @override
    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` from what the model made of the batch and weights ``(B, L)``."""
        return self.classify_many(values, attention[:, None], batch).squeeze(1)

    @override
    def classify_many(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, V, C)`` of each example under V attentions ``(B, V, L)``."""
        count = attention.shape[1]
        if self.choice.only_last:
            size, others = self.choice.head_size, self.choice.others
            own = len(self.choice.heads) * size
            looked_at = (attention.to(values.dtype) @ values[..., :own]).flatten(0, 1)
            rest = values[:, 0, own:].repeat_interleave(count, dim=0)
            heads = torch.cat([looked_at, rest[:, : len(others) * size]], dim=-1).view(len(rest), -1, size)
            place = torch.tensor([*self.choice.heads, *others], device=heads.device).argsort()
            state = rest[:, None, len(others) * size :]
            logits = self._above(state, None, ReplacedContext(heads[:, place]))
        else:
            rows = torch.arange(len(batch), device=batch.device).repeat_interleave(count)
            many, hidden = batch.select(rows), self.choice.head_size * self.choice.heads_per_layer
            states, shares = values[rows, :, :hidden], values[rows, :, hidden:]
            weights = (attention.flatten(0, 1)[..., None] * shares).transpose(1, 2)
            logits = self._above(states, many.valid, ReplacedRows(weights, many, self.choice))
        return logits.view(*attention.shape[:2], -1)

    @override
    def answer_rows(self, batch: Batch, target: Tensor) -> Tensor:
        """1 at the first position, which is classified, whatever the class; shape ``(B, L)``."""
        return self.reading_rows(batch)

    @override
    def reading_rows(self, batch: Batch) -> Tensor:
        """1 at the first position, shape ``(B, L)``."""
        rows = torch.zeros(batch.valid.shape, device=batch.device)
        rows[:, 0] = 1
        return rows

    @override
    def value_path(self) -> list[nn.Module]:
        """All but queries and keys of the chosen layers; those too where layers that are not chosen share them."""
        looked_at = {self._modules_of_layers[number] for number in self.choice.layers}
        shared = {name for number, name in enumerate(self._modules_of_layers) if number not in self.choice.layers}
        scorers = {
            part
            for name in looked_at - shared
            for label, part in self.model.get_submodule(name).named_children()
            if label in _SCORERS
        }
        return list(without(self.model, scorers))

    @override
    def run(self, embeddings: Tensor, batch: Batch, attend: Attend | None = None) -> Tensor:
        """Logits, shape ``(B, C)``, of the whole model, with ``attend`` in charge of its self-attention.

        Args:
            embeddings: Word embeddings, shape ``(B, L, E)``.
            batch: B texts.
            attend: None leaves it to the model.

        Raises:
            InputError: The batch is longer than the model can read.
        """
        self._check_length(embeddings.shape[1])
        with own_attention(self.model):
            mask, types = readable(batch.valid), self._token_types(batch)
            output = self.model(inputs_embeds=embeddings, attention_mask=mask, attend=attend, **types)
        return self._ordered(output.logits)

    def _run(self, embeddings: Tensor, batch: Batch) -> tuple[HeadWeights, Tensor, Tensor]:
        """Weights, values and logits."""
        self._check_length(embeddings.shape[1])
        with own_attention(self.model):
            lower = below(self.model, self.choice.layers[0])
            mask, types = readable(batch.valid), self._token_types(batch)
            states = lower(inputs_embeds=embeddings, attention_mask=mask, **types).last_hidden_state
        attend = RowAttend(self.attention, batch, self.choice)
        logits = self._above(states, batch.valid, attend)
        weights = attend.weights()
        # Whoever replaces weights, or goes through the values alone, holds the shares fixed as well.
        shares = weights.shares(batch).detach()
        if not self.choice.only_last:
            return weights, torch.cat([states, shares.to(states.dtype)], dim=-1), logits
        own = attend.values[:, list(self.choice.heads)].transpose(1, 2)
        own = own * shares[..., None].to(own.dtype)
        rest = states[:, 0]
        if others := self.choice.others:  # else nothing of the scorer is in the values
            rest = torch.cat([attend.context[:, others].flatten(1), rest], dim=-1)
        values = torch.cat([own.flatten(2), rest[:, None].expand(-1, states.shape[1], -1).to(own.dtype)], dim=-1)
        return weights, values, logits

    def _above(self, states: Tensor, valid: Tensor | None, attend: Attend) -> Tensor:
        mask = None if valid is None else readable(valid)
        with own_attention(self.model):
            output = above(self.model, self.choice.layers[0])(inputs_embeds=states, attention_mask=mask, attend=attend)
        return self._ordered(output.logits)

    def _ordered(self, logits: Tensor) -> Tensor:
        return logits if self._order is None else logits[:, self._order]

    @override
    def _read_trial(self, batch: Batch, calls: Calls) -> tuple[Tensor, Tensor] | None:
        embeddings, kind = self.embed(batch), self.model.config.model_type
        plain = self._ordered(self.model(inputs_embeds=embeddings).logits)
        self.run(embeddings, batch, calls)
        if len(calls.modules) != self.depth:
            return None
        part = batch.replace(inputs=batch.inputs[:, :5], valid=batch.valid[:, :5], special=batch.special[:, :5])
        cut = torch.arange(8, device=batch.device)[None] < 5
        whole, alone, padded = self(batch).logits, self(part).logits, self(batch.replace(valid=cut)).logits
        if not plain.isfinite().all():
            raise self._unusable(kind, "whose answer to a text is no number (NaN or infinite weights?)")
        if not torch.allclose(plain, whole, atol=1e-3, rtol=1e-3):
            raise self._unusable(kind, "which does not classify its first position")
        return alone, padded
