from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.errors import InputError
from lightning_attn.ops.parts import by_parts, group_sizes, narrowed, rows_within
from tests.helpers.toys import toy_batch


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


@pytest.mark.parametrize("max_tokens", [1, 7, 63, 64, 500, 10**6])
def test_groups_cover_every_row_whatever_the_budget(max_tokens):
    lengths = sorted(torch.randint(0, 40, (200,), generator=torch.Generator().manual_seed(0)).tolist(), reverse=True)
    for enough in (0, max_tokens // 64, max_tokens):
        sizes = group_sizes(lengths, max_tokens, enough)
        assert sum(sizes) == len(lengths)
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0).tolist()
        assert all(
            size == 1 or 1 <= size * max(1, lengths[i]) <= max_tokens for i, size in zip(starts, sizes, strict=True)
        )


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 60), st.integers(1, 4), st.booleans())
def test_narrowed_groups_hold_every_text_once_and_all_of_it(lengths, max_tokens, passes, keep_width):
    batch = toy_batch(tuple(lengths))
    seen = []
    for rows, part in narrowed(batch, max_tokens, passes, keep_width):
        width = part.valid.shape[1]
        assert width == (max(lengths) if keep_width else max(lengths[row] for row in rows.tolist()))
        assert len(rows) * width * passes <= max_tokens or len(rows) == 1
        assert torch.equal(part.inputs, batch.inputs[rows, :width])
        assert torch.equal(part.valid.sum(dim=1), batch.valid[rows].sum(dim=1))
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(lengths)))
