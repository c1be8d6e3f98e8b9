from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from lightning_attn.metrics.functional import kendall
from lightning_attn.metrics.functional.kendall import kendall_tau, merge_close


def check(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor) -> None:
    """Every row against scipy."""
    found = kendall_tau(x, y, valid)
    for row in range(len(x)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a, b = x[row][valid[row]].numpy(), y[row][valid[row]].numpy()
            expected = kendalltau(a, b) if len(a) > 1 else (np.nan, np.nan)
        np.testing.assert_allclose(found.tau[row].item(), expected[0], atol=1e-12, err_msg=f"tau {a} {b}")
        np.testing.assert_allclose(found.p_value[row].item(), expected[1], rtol=1e-9, atol=1e-13, err_msg=f"p {a} {b}")


@st.composite
def padded(draw):
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    width = max(max(lengths), 1) + draw(st.integers(0, 3))
    values = st.sampled_from([-1e300, -2.0, -0.5, 0.0, 1e-300, 0.5, 1.0, 3.0, 1e18]) | st.floats(-5, 5)
    rows = st.lists(values, min_size=width, max_size=width)
    x = torch.tensor([draw(rows) for _ in lengths], dtype=torch.float64)
    y = torch.tensor([draw(rows) for _ in lengths], dtype=torch.float64)
    return x, y, torch.arange(width) < torch.tensor(lengths)[:, None]


@given(padded())
@settings(max_examples=150, deadline=None)
def test_equals_scipy_with_ties_and_any_length(case):
    check(*case)


@pytest.mark.parametrize("length", [2, 3, 10, 33, 34, 60, 200])
@pytest.mark.parametrize("levels", [3, 20, None])
def test_equals_scipy_over_the_change_from_exact_to_normal(length, levels):
    generator = torch.Generator().manual_seed(length)
    x, y = (torch.rand(8, length, generator=generator) for _ in range(2))
    if levels:
        y = (y * levels).floor()
    valid = torch.rand(8, length, generator=generator) < 0.9
    check(x, y, valid)


@pytest.mark.parametrize("length", [2, 3, 5, 33, 40, 171, 200])
def test_equals_scipy_where_the_order_is_nearly_the_same_or_reversed(length):
    x = torch.arange(length, dtype=torch.float64)
    one_off = x.clone()
    one_off[[0, 1]] = one_off[[1, 0]]
    rows = torch.stack([x, x.flip(0), one_off, one_off.flip(0)])
    check(x.expand(4, -1), rows, torch.ones(4, length, dtype=torch.bool))


def test_undefined_rows_are_nan():
    x = torch.tensor([[1.0, 2, 3], [1, 1, 1], [1, 2, torch.nan], [5, 1, 1]])
    y = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]])
    valid = torch.tensor([[True, False, False], [True] * 3, [True] * 3, [False] * 3])
    found = kendall_tau(x, y, valid)
    assert found.tau.isnan().all()
    assert found.p_value.isnan().all()
    assert kendall_tau(x[:0], y[:0], valid[:0]).tau.shape == (0,)


def test_blocks_change_nothing(monkeypatch):
    x, y = torch.rand(5, 40), (torch.rand(5, 40) * 6).floor()
    valid = torch.arange(40) < torch.tensor([40, 7, 22, 1, 0])[:, None]
    whole = kendall_tau(x, y, valid)
    for size in (1, 100, 2500):
        monkeypatch.setattr(kendall, "_CHUNK", size)
        parts = kendall_tau(x, y, valid)
        assert torch.equal(whole.tau.nan_to_num(9), parts.tau.nan_to_num(9))
        assert torch.equal(whole.p_value.nan_to_num(9), parts.p_value.nan_to_num(9))


def test_differences_below_float32_count_in_float64():
    x = torch.tensor([[1.0, 1.0 + 1e-12, 1.0 + 2e-12]], dtype=torch.float64)
    assert kendall_tau(x, torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)).tau.item() == pytest.approx(1)


def test_merging_makes_ties_of_noise_and_keeps_the_order():
    x = torch.tensor([[0.5, 0.1, 0.5 + 1e-8, 0.3, 9.0]])
    merged = merge_close(x, torch.tensor([[True, True, True, True, False]]), 1e-6)
    assert merged.tolist() == [[2, 0, 2, 1, 0]]


def test_a_dense_chain_of_values_is_not_one_tie() -> None:
    """Steps below the tolerance must not tie values that are far apart."""
    x = torch.linspace(0, 1, 400)[None].double()
    groups = merge_close(x, torch.ones_like(x, dtype=torch.bool), 0.01)
    assert len(groups.unique()) == pytest.approx(100, abs=2)
    for group in groups.unique():
        members = x[groups == group]
        assert members.max() - members.min() <= 0.01 + 1e-9
