"""Masks whose joint distribution with the label is known exactly, and instance weighting for two classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_attn.mitigations import InstanceWeighting
from lightning_attn.types import Batch, DataSchema

# P(y | mask) of three masks; the joint distribution with P(mask) below is known exactly.
P_MASK = torch.tensor([0.5, 0.3, 0.2])
P_Y_GIVEN_MASK = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
MASKS = torch.tensor([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6]])


def joint_sample(size: int) -> tuple[Tensor, Batch, Tensor]:
    """Examples in the exact proportions of the joint distribution: mask number, batch, attention."""
    mask, label = [], []
    for m in range(3):
        for y in range(2):
            count = round(size * float(P_MASK[m] * P_Y_GIVEN_MASK[m, y]))
            mask += [m] * count
            label += [y] * count
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(0))
    which, target = torch.tensor(mask)[order], torch.tensor(label)[order]
    valid = torch.ones(len(mask), 3, dtype=torch.bool)
    batch = Batch(torch.zeros_like(valid, dtype=torch.long), valid, ~valid, target, torch.arange(len(mask)))
    return which, batch, MASKS[which]


def weighting(**arguments: Any) -> InstanceWeighting:
    mitigation = InstanceWeighting(**{"warmup_steps": 0, **arguments})
    mitigation.build(DataSchema(num_classes=2, vocabulary_size=30))
    return mitigation


def toy_mask_batch() -> Batch:
    valid = torch.ones(3, 3, dtype=torch.bool)
    return Batch(torch.zeros(3, 3, dtype=torch.long), valid, ~valid, torch.zeros(3, dtype=torch.long), torch.arange(3))
