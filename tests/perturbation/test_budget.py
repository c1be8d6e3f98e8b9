from __future__ import annotations

import math

import pytest

from lightning_attn.perturbation.budget import FlooredFractions, Fractions, Steps, WholeSteps
from tests.helpers.toys import toy_batch


@pytest.mark.parametrize("special", [False, True])
def test_budgets_follow_their_formulas(special):
    lengths = tuple(range(3, 70))
    batch = toy_batch(lengths=lengths, special=special)
    fractions, ninths = Fractions().counts(batch), Steps().counts(batch)
    whole, floors = WholeSteps().counts(batch), FlooredFractions([j / 10 for j in range(1, 11)]).counts(batch)
    for row, length in enumerate(lengths):
        n = length - 2 * special
        cap = n if special else n - 1
        exact = [max(1, math.ceil(round(f * n, 9))) for f in (0.01, 0.05, 0.1, 0.2, 0.5)]
        assert fractions[row].tolist() == [min(cap, k) for k in exact]
        assert ninths[row].tolist() == [min(cap, round(j / 9 * n)) for j in range(1, 10)]
        assert whole[row].tolist() == [min(cap, round(j / 9 * length)) for j in range(1, 10)]
        assert floors[row].tolist() == [min(cap, j * n // 10) for j in range(1, 11)]
