"""Texts as a network reads them, with what it predicts: `Reading`; by class `ClassReader`, by span `AnswerReader`."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.data.encoded import Array, Encoded
from lightning_attn.data.processor import PairProcessor, TextProcessor
from lightning_attn.data.questions import Question
from lightning_attn.data.windows import QuestionProcessor, WindowDataset
from lightning_attn.errors import InputError, shown
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.transformer.qa import TransformerQANetwork
from lightning_attn.types import Batch

NO_ANSWER = "(no answer)"
_MOST = 5  # answers listed
_AT_ONCE = 32  # windows


@dataclass
class Reading:
    """B texts, read.

    Attributes:
        batch: What the network reads.
        target: Column of the logits that belongs to what is predicted, shape ``(B,)``, int64.
        predictions: What is predicted, by name.
        probabilities: Of each text the probabilities of what might be predicted, by name.
        tokens: Of each text what its inner positions hold.
        sides: Of each text which text of its pair they are of, 0 the text and 1 the query; None for single texts.
    """

    batch: Batch
    target: Tensor
    predictions: list[str]
    probabilities: list[dict[str, float]]
    tokens: list[list[str]]
    sides: list[list[int] | None]


class Reader(ABC):
    """Reads texts for a network.

    Args:
        network: In evaluation mode.
        processor: That belongs to it.
    """

    def __init__(self, network: AttentionNetwork, processor: TextProcessor) -> None:
        self.network = network
        self.processor = processor

    @abstractmethod
    def check(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        """Look at all texts before the first is read; warns of what is cut off.

        Raises:
            InputError: Queries are missing or out of place.
        """

    @abstractmethod
    def read(self, texts: Sequence[str], queries: Sequence[str] | None, device: torch.device) -> Reading:
        """Some of these texts."""


class ClassReader(Reader):
    """The most probable class of each text."""

    @override
    def check(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        pairs = self.network.reads_query or isinstance(self.processor, PairProcessor)
        if pairs and queries is None:
            raise InputError("The checkpoint's network reads a text and a query: give the query too (--query).")
        if not pairs and queries is not None:
            raise InputError("The checkpoint's network reads single texts: leave the query out.")
        if cut := self._encoded(texts, queries).truncated:
            limit = self.processor.max_length
            warnings.warn(
                f"{cut:,} of {len(texts):,} texts exceed {limit} tokens; their end is not read.", stacklevel=3
            )

    @override
    def read(self, texts: Sequence[str], queries: Sequence[str] | None, device: torch.device) -> Reading:
        batch = self.processor.batch(texts, queries).to(device)
        schema = self.network.schema
        with torch.no_grad():
            probabilities = schema.probabilities(self.network(batch).logits)
        target = probabilities.argmax(dim=-1)
        names = schema.names
        tokens: list[list[str]] = []
        sides: list[list[int] | None] = []
        for row, text in enumerate(texts):
            inner = batch.inner[row, : int(batch.valid[row].sum())].tolist()
            surface, side = self._surface(text, None if queries is None else queries[row])
            tokens.append([token for token, keep in zip(surface, inner, strict=True) if keep])
            sides.append(None if side is None else [one for one, keep in zip(side, inner, strict=True) if keep])
        return Reading(
            batch,
            target,
            [schema.named_prediction(row) for row in probabilities],
            [dict(zip(names, row, strict=True)) for row in probabilities.tolist()],
            tokens,
            sides,
        )

    def _encoded(self, texts: Sequence[str], queries: Sequence[str] | None) -> Encoded:
        if isinstance(self.processor, PairProcessor) and queries is not None:
            return self.processor.encode_pairs(texts, queries)
        return self.processor.encode(texts)

    def _surface(self, text: str, query: str | None) -> tuple[list[str], list[int] | None]:
        """The pieces of one text, and which text of a pair each is of."""
        if not isinstance(self.processor, PairProcessor) or query is None:
            return self.processor.surface(text), None
        sides = self.processor.encode_pairs([text], [query]).sides
        assert sides is not None
        return self.processor.surface_pair(text, query), sides.tolist()


class AnswerReader(Reader):
    """The most probable answer of each question, and the window of its text that the answer stands in.

    The rule is that of :class:`~lightning_attn.tasks.QuestionAnswerer`: the span with the highest logit over all
    windows, unless in every window "no answer here" has a higher logit than that. Probabilities are of spans within the
    deciding window; spans of the same words count together.
    """

    network: TransformerQANetwork
    processor: QuestionProcessor

    @override
    def check(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        if queries is None:
            raise InputError("The checkpoint's network answers questions: give each text its question (--query).")

    @override
    def read(self, texts: Sequence[str], queries: Sequence[str] | None, device: torch.device) -> Reading:
        asked = [
            Question(str(row), query, text, (), row, f"question {shown(query)}")
            for row, (text, query) in enumerate(zip(texts, cast(Sequence[str], queries), strict=True))
        ]
        windows = self.processor.windows(asked)
        deciding, spans = self._decided(windows, device)
        batch = windows[deciding.tolist()].to(device)
        with torch.no_grad():
            probabilities = self.network.spans(self.network.ends(batch)).double().softmax(dim=-1)
        length = batch.valid.shape[1]
        target = self.network.number(torch.as_tensor(spans, device=device), length)
        highest, columns = probabilities.topk(min(4 * _MOST, probabilities.shape[-1]), dim=-1)
        reading = Reading(batch, target, [], [], [], [])
        for row, question in enumerate(asked):
            predicted = _words(windows, deciding[row], divmod(int(target[row]), length))
            likely = {predicted: 0.0}
            for column, probability in zip(columns[row].tolist(), highest[row].tolist(), strict=True):
                if probability > 0:  # what is no span of the window has none
                    answer = _words(windows, deciding[row], divmod(column, length))
                    likely[answer] = likely.get(answer, 0.0) + probability
            # the predicted one may not be the most probable of its window where another window knows of an answer
            likely[predicted] = likely[predicted] or float(probabilities[row, target[row]])
            ranked = sorted(likely.items(), key=lambda pair: (pair[0] != predicted, -pair[1]))
            tokens, sides = self._surface(windows, int(deciding[row]), question)
            reading.predictions.append(predicted)
            reading.probabilities.append(dict(ranked[:_MOST]))
            reading.tokens.append(tokens)
            reading.sides.append(sides)
        return reading

    def _decided(self, windows: WindowDataset, device: torch.device) -> tuple[Array, Array]:
        """Of Q questions the window that decides, shape ``(Q,)``, and first and last token, shape ``(Q, 2)``."""
        best: list[Array] = []
        spans: list[Array] = []
        none: list[Array] = []
        for first in range(0, len(windows), _AT_ONCE):
            batch = windows[list(range(first, min(first + _AT_ONCE, len(windows))))].to(device)
            with torch.no_grad():
                decided = self.network.best_spans(self.network.ends(batch))
            for kept, values in zip((best, spans, none), decided, strict=True):
                kept.append(values.cpu().numpy())
        answers, silences, places = np.concatenate(best), np.concatenate(none), np.concatenate(spans)
        deciding = np.empty(len(windows.questions), dtype=np.int64)
        for number in range(len(deciding)):
            rows = np.flatnonzero(windows.owner == number)
            deciding[number] = rows[answers[rows].argmax()]
            if silences[rows].min() > answers[rows].max():
                deciding[number] = rows[silences[rows].argmin()]
                places[deciding[number]] = 0
        return deciding, places[deciding]

    def _surface(self, windows: WindowDataset, window: int, question: Question) -> tuple[list[str], list[int]]:
        """What the inner positions of a window hold, as it was written, and whether it is the question (1)."""
        own = slice(windows.offsets[window], windows.offsets[window + 1])
        inner = ~windows.special[own]
        spans = windows.spans[own][inner]
        encoded = self.processor.encode([question.text])
        surface = self.processor.surface(question.text)
        words = iter([piece for piece, special in zip(surface, encoded.special.tolist(), strict=True) if not special])
        tokens = [question.context[first:end].strip() if first >= 0 else next(words) for first, end in spans.tolist()]
        return tokens, [int(first < 0) for first, _ in spans.tolist()]


def _words(windows: WindowDataset, window: int, span: tuple[int, int]) -> str:
    """What a span of a window is in its context, by its first and last token."""
    first, end = windows.characters(np.array([window]), np.array([span]))[0]
    return windows.questions[windows.owner[window]].context[first:end] if any(span) else NO_ANSWER
