"""Leaked bits as a torchmetrics class; the mathematics is in ``metrics/functional``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_attn.metrics.base import PerExampleMean
from lightning_attn.metrics.functional.leakage import FEATURES, Leakage, attention_features, leaked_bits
from lightning_attn.types import Batch


class LeakedBits(PerExampleMean):
    """Label information that a small cross-fitted probe reads from the attention alone; see :func:`leaked_bits`.

    Args:
        folds: Parts of the data, at least 2.
        seed: Of the parts and the bootstrap.
        **kwargs: See ``torchmetrics.Metric``.

    Attributes:
        result: Everything the probe found, set by ``compute``.
    """

    higher_is_better = False
    columns = FEATURES + 1

    def __init__(self, folds: int = 5, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.folds = folds
        self.seed = seed
        self.result = Leakage()

    def update(self, attention: Tensor, batch: Batch) -> None:
        """Add a batch: weights ``(B, L)``; ``batch.target`` holds class indices ``(B,)``."""
        # Special tokens that are attended count too: weight on them is where a label can hide best.
        features = attention_features(attention, batch.inner | (attention > 0))
        self.add(torch.cat([features, batch.target[:, None].to(features)], dim=-1), batch.index)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scalars by name, NaN if undefined: the fields of :class:`Leakage`, but its interval as ``leaked_bits_*``."""
        rows, _ = self.rows()
        features, target = rows[:, :-1].numpy(), rows[:, -1].long().numpy()
        self.result = leaked_bits(features, target, self.folds, self.seed)
        self.count, self.skipped = self.result.count, len(target) - self.result.count
        names = ("leaked_bits", "mask_only_accuracy", "fano_bits", "length_bits", "order_free_bits")
        values = {name: getattr(self.result, name) for name in names}
        values |= {"leaked_bits_low": self.result.low, "leaked_bits_high": self.result.high}
        return {name: torch.tensor(value, device=self.device) for name, value in values.items()}
