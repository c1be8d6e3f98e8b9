"""The label as a random variable, and how frequent its values are: `Outcomes`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attn.types import Batch, DataSchema


class Outcomes(nn.Module):
    """A label is one draw from ``cells`` outcomes in each of ``columns`` columns: C in one, or 2 in C (multi-label).

    Args:
        schema: Of the data.
    """

    frequency: Tensor

    def __init__(self, schema: DataSchema) -> None:
        super().__init__()
        self.multi_label = schema.multi_label
        self.columns, self.cells = (schema.num_classes, 2) if schema.multi_label else (1, schema.num_classes)
        self.register_buffer("frequency", torch.ones(self.columns, self.cells))

    def probabilities(self, batch: Batch) -> Tensor:
        """How probable each cell of each column is, shape ``(B, columns, cells)``: 1 for the label's own, else 0."""
        if self.is_soft(batch):
            return batch.target[:, None]
        return F.one_hot(batch.target.long().view(len(batch), self.columns), self.cells)

    def is_soft(self, batch: Batch) -> bool:
        """Whether the target holds probabilities of classes."""
        return not self.multi_label and batch.target.is_floating_point()

    def count(self, outcome: Tensor) -> Tensor:
        """Add outcomes ``(B, columns, cells)``, on all processes; returns how many there are, ``(columns, cells)``."""
        count = sum_over_processes(outcome.sum(dim=0).to(self.frequency))
        self.frequency += count
        return count

    def prior(self) -> Tensor:
        """Share of each outcome among those counted so far, shape ``(columns, cells)``."""
        return self.frequency / self.frequency.sum(dim=1, keepdim=True)


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes that train together; the values themselves for a single one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values
