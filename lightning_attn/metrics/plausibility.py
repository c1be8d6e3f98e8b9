"""Plausibility metrics as torchmetrics classes; the mathematics is in ``metrics/functional``.

Plausibility (agreement with people) is not faithfulness (agreement with the model): never average the two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.base import PerExampleMean
from lightning_attn.metrics.functional.plausibility import auprc, auroc, f1, token_f1
from lightning_attn.types import Batch


def evidence_of(batch: Batch) -> Tensor:
    """``batch.evidence``, shape ``(B, L)``.

    Raises:
        InputError: The data have none.
    """
    if batch.evidence is None:
        raise InputError("Plausibility metrics need evidence, but the data have none; leave them out of the metrics.")
    return batch.evidence


class EvidenceAUPRC(PerExampleMean):
    """Mean of :func:`auprc` over distinct texts that have evidence and something else.

    Args:
        trapezoid: See :func:`auprc`.
        **kwargs: See ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, trapezoid: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trapezoid = trapezoid

    def update(self, scores: Tensor, batch: Batch) -> None:
        """Add a batch: scores ``(B, L)``."""
        self.add(auprc(scores, evidence_of(batch), batch.inner, self.trapezoid), batch.index)


class EvidenceAUROC(PerExampleMean):
    """Mean of :func:`auroc` over distinct texts that have evidence and something else."""

    higher_is_better = True

    def update(self, scores: Tensor, batch: Batch) -> None:
        """Add a batch: scores ``(B, L)``."""
        self.add(auroc(scores, evidence_of(batch), batch.inner), batch.index)


class TokenF1(PerExampleMean):
    """Mean of :func:`token_f1` over distinct texts with evidence.

    Args:
        fraction: Share of a text that is predicted; None means as much as its evidence.
        **kwargs: See ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, fraction: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fraction = fraction

    def update(self, scores: Tensor, batch: Batch) -> None:
        """Add a batch: scores ``(B, L)``."""
        self.add(token_f1(scores, evidence_of(batch), batch.inner, self.fraction), batch.index)


class IOUF1(PerExampleMean):
    """F1 of the mean precision and the mean recall of predicted spans; see :func:`span_matches`.

    ERASER's macro F1. Another quantity goes by the same name: the Jaccard index of token sets.
    """

    higher_is_better = True
    columns = 2

    def update(self, precision: Tensor, recall: Tensor, index: Tensor) -> None:
        """Add a batch: the results of :func:`span_matches`, each ``(B,)``, and indices ``(B,)``."""
        self.add(torch.stack([precision, recall], dim=-1), index)

    def compute(self) -> Tensor:
        """The F1, a scalar in [0, 1]; NaN if no text has evidence."""
        precision, recall = self.means()
        return f1(precision, recall).to(self.device, torch.float32)
