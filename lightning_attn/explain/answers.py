"""Questions as a network that answers by spans reads them: `AnswerReader`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from lightning_attn.data.encoded import Array
from lightning_attn.data.questions import Question
from lightning_attn.data.windows import QuestionProcessor, WindowDataset
from lightning_attn.errors import InputError, shown
from lightning_attn.explain.readings import Reader, Reading
from lightning_attn.networks.transformer.qa import TransformerQANetwork

NO_ANSWER = "(no answer)"
MOST = 5  # answers shown
_AT_ONCE = 32  # windows


class AnswerReader(Reader):
    """The most probable answer of each question, and the window of its text that the answer stands in.

    The rule is that of :class:`~lightning_attn.tasks.QuestionAnswerer`: the span with the highest logit over all
    windows, unless in every window "no answer here" has a higher logit than that. Probabilities are of spans within the
    chosen window; spans of the same words count together.
    """

    network: TransformerQANetwork
    processor: QuestionProcessor

    def check(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        """See :meth:`Reader.check`."""
        if queries is None:
            raise InputError("The checkpoint's network answers questions: give each text its question (--query).")

    def read(self, texts: Sequence[str], queries: Sequence[str] | None, device: torch.device) -> Reading:
        """See :meth:`Reader.read`."""
        asked = [
            Question(str(row), query, text, (), row, f"question {shown(query)}")
            for row, (text, query) in enumerate(zip(texts, cast(Sequence[str], queries), strict=True))
        ]
        windows = self.processor.windows(asked)
        chosen, spans = self._decided(windows, device)
        batch = windows[chosen.tolist()].to(device)
        with torch.no_grad():
            probabilities = self.network.spans(self.network.ends(batch)).double().softmax(dim=-1)
        length = batch.valid.shape[1]
        target = self.network.number(torch.as_tensor(spans, device=device), length)
        highest, columns = probabilities.topk(min(4 * MOST, probabilities.shape[-1]), dim=-1)
        reading = Reading(batch, target, [], [], [], [])
        for row, question in enumerate(asked):
            predicted = _words(windows, chosen[row], divmod(int(target[row]), length))
            likely = {predicted: 0.0}
            for column, probability in zip(columns[row].tolist(), highest[row].tolist(), strict=True):
                if probability > 0:  # what is no span of the window has none
                    answer = _words(windows, chosen[row], divmod(column, length))
                    likely[answer] = likely.get(answer, 0.0) + probability
            # the predicted one may not be the most probable of its window where another window knows of an answer
            likely[predicted] = likely[predicted] or float(probabilities[row, target[row]])
            ranked = sorted(likely.items(), key=lambda pair: (pair[0] != predicted, -pair[1]))
            tokens, sides = self._surface(windows, int(chosen[row]), question)
            reading.predictions.append(predicted)
            reading.probabilities.append(dict(ranked[:MOST]))
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
                found = self.network.best_spans(self.network.ends(batch))
            for kept, values in zip((best, spans, none), found, strict=True):
                kept.append(values.cpu().numpy())
        answers, silences, places = np.concatenate(best), np.concatenate(none), np.concatenate(spans)
        chosen = np.empty(len(windows.questions), dtype=np.int64)
        for number in range(len(chosen)):
            rows = np.flatnonzero(windows.owner == number)
            chosen[number] = rows[answers[rows].argmax()]
            if silences[rows].min() > answers[rows].max():
                chosen[number] = rows[silences[rows].argmin()]
                places[chosen[number]] = 0
        return chosen, places[chosen]

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
    """What a span of a window is in its context, given as first and last token."""
    first, end = windows.characters(np.array([window]), np.array([span]))[0]
    return windows.questions[windows.owner[window]].context[first:end] if any(span) else NO_ANSWER
