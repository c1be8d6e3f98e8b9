from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.parts import by_parts, rows_within
from lightning_attn.types import InputError


@dataclass
class Pair:
    number: torch.Tensor
    square: torch.Tensor


@given(st.integers(0, 9), st.integers(0, 5), st.integers(1, 40), st.integers(1, 3))
def test_parts_fit_the_budget_and_are_joined_in_order(count, length, max_tokens, repeats):
    sizes = []

    def work(rows: torch.Tensor) -> Pair:
        sizes.append(len(rows))
        return Pair(rows, (rows**2)[:, None])

    joined = by_parts(work, torch.ones(count, length, dtype=torch.bool), max_tokens, repeats)
    assert joined.number.tolist() == list(range(count))
    assert joined.square.tolist() == [[i**2] for i in range(count)]
    assert all(size * length * repeats <= max_tokens or size == 1 for size in sizes)


def test_a_budget_of_nothing_is_the_users_mistake():
    with pytest.raises(InputError, match=r"max_tokens.*at least 1, not 0"):
        rows_within(0, 5)
