"""The one loss: labels, probabilities and several labels, with and without weights, against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.ops.losses import classification_loss
from lightning_attn.types import DataSchema

ONE, SEVERAL = DataSchema(num_classes=3), DataSchema(num_classes=3, multi_label=True)


def by_hand(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> float:
    """``- sum_bc w_bc t_bc ln p_bc / B`` of probabilities ``(B, C)``."""
    total = 0.0
    for row, said, weight in zip(logits.tolist(), target.tolist(), weights.tolist(), strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        total -= sum(w * t * (value - norm) for value, t, w in zip(row, said, weight, strict=True))
    return total / len(logits)


@given(st.integers(0, 99), st.integers(1, 5))
def test_probabilities_are_the_mean_over_classes_drawn_from_them(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 3, generator=generator)
    target = torch.rand(size, 3, generator=generator).softmax(dim=-1)
    weights = torch.rand(size, 3, generator=generator)
    even = torch.ones(size, 3)
    assert float(classification_loss(logits, target, ONE)) == pytest.approx(by_hand(logits, target, even), rel=1e-5)
    of_classes = classification_loss(logits, target, ONE, weights)
    assert float(of_classes) == pytest.approx(by_hand(logits, target, weights), rel=1e-5)
    of_examples = classification_loss(logits, target, ONE, weights[:, 0])
    assert float(of_examples) == pytest.approx(by_hand(logits, target, weights[:, :1].expand(-1, 3)), rel=1e-5)


def test_labels_are_probabilities_of_0_and_1() -> None:
    logits, label, weights = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]), torch.rand(5)
    as_probabilities = torch.nn.functional.one_hot(label, 3).float()
    for weight in (None, weights):
        found = classification_loss(logits, label, ONE, weight)
        torch.testing.assert_close(classification_loss(logits, as_probabilities, ONE, weight), found)


def test_several_labels_are_weighed_each_by_itself() -> None:
    logits, target, weights = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float(), torch.rand(4, 3)
    p = logits.sigmoid()
    expected = -(weights * (target * p.log() + (1 - target) * (1 - p).log())).mean()
    torch.testing.assert_close(classification_loss(logits, target, SEVERAL, weights), expected)
