from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.metrics.functional import flip_first, flip_fraction


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(9, 20),
)
def test_the_smallest_count_that_flips(rows: list[list[tuple[int, int]]], n: int) -> None:
    width = max(map(len, rows))
    rows = [row + [row[-1]] * (width - len(row)) for row in rows]
    counts = torch.tensor([[count for count, _ in row] for row in rows])
    winners = torch.tensor([[winner for _, winner in row] for row in rows])
    probabilities = torch.nn.functional.one_hot(winners, 3) * 0.5 + 0.1
    target, sizes = torch.zeros(len(rows), dtype=torch.int64), torch.full((len(rows),), n)
    share, first = flip_fraction(probabilities, target, counts, sizes), flip_first(probabilities, target, counts)
    for number, row in enumerate(rows):
        flips = [count for count, winner in row if winner != 0 and count > 0]
        torch.testing.assert_close(share[number].item(), min(flips, default=n) / n, rtol=1e-6, atol=0)
        single = [winner != 0 for count, winner in row if count == 1]
        assert math.isnan(first[number]) if not single else first[number] == any(single)


def test_a_text_without_tokens_does_not_flip() -> None:
    found = flip_fraction(torch.tensor([[[0.1, 0.9]]]), torch.tensor([0]), torch.tensor([[0]]), torch.tensor([0]))
    assert found.tolist() == [1.0]
