"""Answers over distinct questions, the same on any number of processes: `BestAnswers`, `AnswerRecall`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_attn.metrics.base import PerExampleMean
from lightning_attn.metrics.functional.plausibility import answer_recall
from lightning_attn.types import Batch


class AnswerRecall(PerExampleMean):
    """Tokens of the answers among the k best-ranked of each text, over all tokens of the answers; in [0, 1].

    See :func:`~lightning_attn.metrics.functional.answer_recall`. NaN if no text has an answer.

    Args:
        k: Tokens that count as found; 20 is published.
        kwargs: For :class:`torchmetrics.Metric`.
    """

    higher_is_better = True
    columns = 2

    def __init__(self, k: int = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def update(self, scores: Tensor, batch: Batch, index: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            scores: Shape ``(B, L)``.
            batch: B texts with evidence.
            index: What is to count once, shape ``(B,)``, int64; None means ``batch.index``.
        """
        found = torch.stack(answer_recall(scores, batch, self.k), dim=1)
        self.add(found, batch.index if index is None else index)

    def compute(self) -> Tensor:
        """The recall, a scalar."""
        values, _ = self.rows()
        sums = values.sum(dim=0)
        self.count = int((values[:, 1] > 0).sum())
        recall: Tensor = sums[0] / sums[1]
        return recall.to(self.device, torch.float32)


class BestAnswers(PerExampleMean):
    """The best span of each question over all its windows.

    ``compute`` gives one row a question: its number, the logit of its best span, first character and one after the
    last, and the lowest logit of "no answer here"; shape ``(Q, 5)``, float64, on the CPU.
    """

    columns = 5

    def update(self, question: Tensor, logit: Tensor, span: Tensor, none: Tensor, index: Tensor) -> None:
        """Add the best span of each of B windows.

        Args:
            question: Number of the question, shape ``(B,)``, int64.
            logit: Of the span, shape ``(B,)``.
            span: First character of it in the context, and one after the last, shape ``(B, 2)``, int64.
            none: Logit of no answer, shape ``(B,)``.
            index: Row of the window, shape ``(B,)``, int64; a repeated one counts once.
        """
        # Characters are exact in float32 up to 16 million.
        self.add(torch.stack([question, logit.float(), span[:, 0], span[:, 1], none.float()], dim=1), index)

    def compute(self) -> Tensor:
        """See the class."""
        values, _ = self.rows()
        order = (-values[:, 1]).argsort(stable=True)
        order = order[values[order, 0].argsort(stable=True)]
        sorted_ = values[order]
        first = torch.ones(len(sorted_), dtype=torch.bool)
        first[1:] = sorted_[1:, 0] != sorted_[:-1, 0]
        best = sorted_[first].clone()
        place = first.cumsum(0) - 1
        best[:, 4] = torch.full((len(best),), torch.inf, dtype=best.dtype).scatter_reduce(
            0, place, sorted_[:, 4], reduce="amin"
        )
        return best
