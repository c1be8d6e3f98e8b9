"""An untouched Hugging Face model that answers questions by a span of a text: `TransformerQANetwork`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.hub.classifier import load_answerer
from lightning_attn.hub.models import readable, silent
from lightning_attn.networks.transformer.classifying_row import ClassifyingRow
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.self_attention import Attend, Calls, Projections, own_attention
from lightning_attn.types import AttentionOutput, Batch, DataSchema


class TransformerQANetwork(TransformerModel):
    """``AutoModelForQuestionAnswering`` as it is: a question and a window of a text, answered by a span of the window.

    A span is what a class is elsewhere: of L positions, column ``first * L + last`` of the logits belongs to the span
    from ``first`` to ``last`` and is the sum of its start logit and its end logit, so that its softmax is the product
    of both. Spans that begin or end outside the context, are longer than ``max_answer_length`` or end before they begin
    have the lowest float; the span of the first position alone says that there is no answer here.

    ``attention`` is what the positions of the last layer give to each position, mean over attention heads and rows. It
    is there to be looked at: every position answers for itself, no weights pool the text, and there is no shortcut
    through them. So other weights cannot be put in their place (``replaceable`` is False, see
    :class:`~lightning_attn.networks.AttentionNetwork`), and of the mitigations only those apply that change what is
    read (:class:`~lightning_attn.mitigations.MaskedFineTuning`).

    Args:
        name_or_path: Name of a model on the Hub, or a folder; one that answers no questions yet gets a new last layer.
        max_answer_length: Most tokens of an answer, at least 1.
        config: The model's configuration, plain values as in ``config.json``. Weights are not loaded then, but start at
            random: a checkpoint sets this, and brings the weights. None reads both from ``name_or_path``.
        gradient_checkpointing: See :class:`TransformerNetwork`; here all layers are computed twice.

    Raises:
        InputError: ``max_answer_length`` is below 1.
    """

    replaceable = False

    def __init__(
        self,
        name_or_path: str,
        max_answer_length: int = 30,
        config: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if max_answer_length < 1:
            raise InputError(f"TransformerQANetwork needs a max_answer_length of at least 1, not {max_answer_length}.")
        self.name_or_path = name_or_path
        self.max_answer_length = max_answer_length
        self.config = config
        self.gradient_checkpointing = gradient_checkpointing
        self.attention = ClassifyingRow()

    @override
    def make_layers(self, schema: DataSchema) -> None:
        """Load the model, or make it from ``config``, and try it out.

        Raises:
            InputError: The data are no questions with a text; there is no such model, or it cannot be used here; or the
                data were split by another tokenizer.
        """
        if not schema.spans:
            raise InputError(
                "TransformerQANetwork answers by spans of a text, but the data have classes: use TransformerNetwork, "
                "or SQuADDataModule."
            )
        size = self._vocabulary(schema)
        with silent():
            config = self._read_config()
            self._check_vocabulary(config, size)
            model = load_answerer(self, config)
        self._adopt(model)

    def ends(self, batch: Batch, embeddings: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """Start and end logits, shape ``(B, 2, L)``, the lowest float where no answer begins or ends.

        Args:
            batch: B windows.
            embeddings: Used in place of :meth:`embed`.
            attend: In charge of the model's self-attention; None leaves it to the fused kernel.

        Raises:
            InputError: The batch is longer than the model can read.
        """
        embeddings = self.embed(batch) if embeddings is None else embeddings
        self._check_length(embeddings.shape[1])
        with own_attention(self.model):
            mask, types = readable(batch.valid), self._token_types(batch)
            output = self.model(inputs_embeds=embeddings, attention_mask=mask, attend=attend, **types)
        logits = torch.stack([output.start_logits, output.end_logits], dim=1)
        return logits.masked_fill(~self.answerable(batch)[:, None], torch.finfo(logits.dtype).min / 4)

    def answerable(self, batch: Batch) -> Tensor:
        """Where an answer may begin or end: in the context, and at the first position; shape ``(B, L)``, bool.

        The context is the last text of the pair: what stands before the last special token, and after all others.
        """
        seen = batch.special.cumsum(dim=1)
        context = batch.inner & (seen == seen[:, -1:] - 1)
        context[:, 0] = True
        return context

    @override
    def run(self, embeddings: Tensor, batch: Batch, attend: Attend | None = None) -> Tensor:
        """As in the base class; logits of spans, shape ``(B, L * L)``."""
        return self.spans(self.ends(batch, embeddings, attend))

    def spans(self, ends: Tensor) -> Tensor:
        """Logits of all spans, shape ``(B, L * L)``, from those of their ends, shape ``(B, 2, L)``."""
        length = ends.shape[-1]
        place = torch.arange(length, device=ends.device)
        size = place - place[:, None] + 1
        possible = (size >= 1) & (size <= self.max_answer_length)
        possible[0, 1:] = False
        # alpha makes it no sum of two branches for the rules of relevance: each end counts by itself
        both = torch.add(ends[:, 0, :, None], ends[:, 1, None], alpha=1)
        return both.masked_fill(~possible, torch.finfo(ends.dtype).min / 2).flatten(1)

    def best_spans(self, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best answer of each of B windows, from the logits of its ends, shape ``(B, 2, L)``.

        Returns:
            Its logit, shape ``(B,)``; its first and last position, shape ``(B, 2)``; and the logit of no answer, which
            it is not compared with, shape ``(B,)``.
        """
        logits, length = self.spans(ends), ends.shape[-1]
        none = logits[:, 0].clone()
        logits[:, 0] = logits.min()
        best, number = logits.max(dim=-1)
        return best, torch.stack([number // length, number % length], dim=1), none

    def number(self, span: Tensor, length: int) -> Tensor:
        """Column of the logits, shape ``(B,)``, of spans given as first and last position, shape ``(B, 2)``."""
        return span[:, 0] * length + span[:, 1]

    @override
    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, attention: Tensor | None = None
    ) -> AttentionOutput:
        """As in the base class; for training, :meth:`ends` does without weights.

        Raises:
            InputError: Weights are given, or the batch is longer than the model can read.
        """
        if attention is not None:
            raise self._no_place()
        embeddings = self.embed(batch) if embeddings is None else embeddings
        last = _LastWeights(self.depth)
        logits = self.spans(self.ends(batch, embeddings, last))
        rows = self.reading_rows(batch).to(last.weights.dtype)
        received = torch.einsum("bq,bqk->bk", rows, last.weights.mean(dim=1))
        lowest = torch.finfo(received.dtype).min
        scores = received.clamp(min=torch.finfo(received.dtype).tiny).log().masked_fill(~batch.valid, lowest)
        return AttentionOutput(
            logits, received, received, scores, last.values, keys=scores[..., None], embeddings=embeddings
        )

    @override
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores of the last layer, ``(B, L, 1)``, and what its weights multiply, ``(B, L, H)``."""
        output = self.forward(batch, embeddings=embeddings)
        return output.scores[..., None], output.values

    @override
    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Not possible.

        Raises:
            InputError: Always.
        """
        raise self._no_place()

    @override
    def answer_rows(self, batch: Batch, target: Tensor) -> Tensor:
        """1 at the first and 1 at the last position of the span, 2 where they are one; shape ``(B, L)``."""
        length = batch.valid.shape[1]
        ends = torch.stack([target // length, target % length], dim=1)
        return F.one_hot(ends, length).sum(dim=1).float()

    @override
    def reading_rows(self, batch: Batch) -> Tensor:
        """The same share for every position, shape ``(B, L)``."""
        return batch.valid / batch.valid.sum(dim=1, keepdim=True).clamp(min=1)

    def _no_place(self) -> InputError:
        return InputError(
            "TransformerQANetwork answers at every position by itself, so no other attention can be put in place of "
            "its own; use a measure or method that leaves it alone, for gradients attention_fixed: false."
        )

    @override
    def _read_trial(self, batch: Batch, calls: Calls) -> tuple[Tensor, Tensor] | None:
        special = torch.tensor([[True, False, True, False, True, False, False, False]], device=batch.device)
        batch = batch.replace(special=special)
        alone = self.ends(batch.shortened(5), attend=calls)
        cut = torch.arange(8, device=batch.device)[None] < 5
        return alone, self.ends(batch.replace(valid=cut, special=special & cut))[..., :5]


class _LastWeights(Attend):
    """Keeps weights, shape ``(B, M, L, L)``, and values, shape ``(B, L, H)``, of the last layer."""

    weights: Tensor
    values: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    @override
    def attend(self, layer: int, projections: Projections) -> Tensor:
        if layer != self.depth - 1:
            return projections.fused()
        self.weights = projections.weights()
        self.values = projections.value.transpose(1, 2).flatten(2)
        return F.dropout(self.weights, projections.dropout, projections.module.training) @ projections.value
