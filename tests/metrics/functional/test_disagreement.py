"""Disagreement against SciPy and loops over pairs; the risk-coverage curve against its definition."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional import (
    member_deviation,
    pairwise_jsd,
    pairwise_rank_correlation,
    pairwise_top_overlap,
    risk_coverage,
)

LENGTHS = (7, 1, 12, 2)


def members(count: int, seed: int, rounded: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores ``(K, B, L)`` and which positions count; rounded ones have ties."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    scores = torch.randn(count, *inner.shape, generator=generator, dtype=torch.float64) * 2
    return scores.round() if rounded else scores, inner


def weights(scores: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(~inner, -torch.inf).softmax(dim=-1)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31))
def test_the_divergence_is_scipys_over_all_pairs(count: int, seed: int) -> None:
    scores, inner = members(count, seed)
    attention = weights(scores, inner)
    found = pairwise_jsd(attention)
    for row, length in enumerate(LENGTHS):
        pairs = itertools.combinations(attention[:, row, :length].numpy(), 2)
        expected = np.mean([jensenshannon(one, other) ** 2 for one, other in pairs])
        assert found[row] == pytest.approx(expected, abs=1e-9)


def test_the_divergence_of_members_without_anything_in_common_is_ln_2() -> None:
    attention = torch.eye(3)[:, None]
    assert pairwise_jsd(attention)[0] == pytest.approx(math.log(2))
    assert pairwise_jsd(attention[[0, 0, 0]])[0] == 0


@pytest.mark.filterwarnings("ignore:An input array is constant")
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31), st.booleans())
def test_the_rank_correlation_is_scipys_over_all_pairs(count: int, seed: int, rounded: bool) -> None:
    scores, inner = members(count, seed, rounded)
    found = pairwise_rank_correlation(scores, inner)
    for row, length in enumerate(LENGTHS):
        pairs = itertools.combinations(scores[:, row, :length].numpy(), 2)
        each = [stats.spearmanr(one, other).statistic for one, other in pairs] if length > 1 else [math.nan]
        defined = [value for value in each if not math.isnan(value)]
        if defined:
            assert found[row] == pytest.approx(np.mean(defined), abs=1e-9)
        else:
            assert found[row].isnan()


def test_members_that_rank_nothing_are_left_out() -> None:
    inner = torch.ones(1, 4, dtype=torch.bool)
    scores = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [4, 3, 2, 1]])[:, None]
    assert pairwise_rank_correlation(scores, inner)[0] == pytest.approx(-1)
    assert pairwise_rank_correlation(scores[:2], inner).isnan().all()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31), st.integers(1, 8), st.booleans())
def test_the_overlap_is_that_of_all_pairs_of_sets(count: int, seed: int, top_n: int, rounded: bool) -> None:
    scores, inner = members(count, seed, rounded)
    found = pairwise_top_overlap(scores, inner, top_n)
    for row, length in enumerate(LENGTHS):
        if length <= top_n:
            assert found[row].isnan()
            continue
        tops = [set(np.argsort(-one, kind="stable")[:top_n]) for one in scores[:, row, :length].numpy()]
        expected = np.mean([len(one & other) / top_n for one, other in itertools.combinations(tops, 2)])
        assert found[row] == pytest.approx(expected)


def test_the_deviation_is_that_over_members() -> None:
    scores, inner = members(5, 0)
    attention = weights(scores, inner)
    np.testing.assert_allclose(member_deviation(attention), attention.numpy().std(axis=0), atol=1e-12)


def test_padding_changes_nothing() -> None:
    scores, inner = members(4, 1)
    wider = torch.nn.functional.pad(scores, (0, 5), value=9.0)
    more = torch.nn.functional.pad(inner, (0, 5))
    torch.testing.assert_close(
        pairwise_rank_correlation(wider, more), pairwise_rank_correlation(scores, inner), equal_nan=True
    )
    torch.testing.assert_close(
        pairwise_top_overlap(wider, more, 3), pairwise_top_overlap(scores, inner, 3), equal_nan=True
    )
    torch.testing.assert_close(pairwise_jsd(weights(wider, more)), pairwise_jsd(weights(scores, inner)))


def test_one_member_cannot_disagree() -> None:
    scores, inner = members(1, 0)
    for measure in (
        lambda: pairwise_jsd(scores),
        lambda: pairwise_rank_correlation(scores, inner),
        lambda: pairwise_top_overlap(scores, inner, 3),
        lambda: member_deviation(scores),
    ):
        with pytest.raises(InputError, match="at least two of them, not 1"):
            measure()
    with pytest.raises(InputError, match="top_n, the positions whose overlap is counted, must be at least 1, not 0"):
        pairwise_top_overlap(*members(2, 0), 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31))
def test_the_curve_is_that_of_its_definition(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    uncertainty, error = generator.permutation(count) / 7, generator.normal(size=count)
    found = risk_coverage(torch.tensor(uncertainty), torch.tensor(error))
    risks = [error[np.argsort(uncertainty)[:kept]].mean() for kept in range(1, count + 1)]
    np.testing.assert_allclose(found.risk, risks, atol=1e-12)
    np.testing.assert_allclose(found.coverage, np.arange(1, count + 1) / count)
    assert found.area == pytest.approx(np.mean(risks))
    best = [np.sort(error)[:kept].mean() for kept in range(1, count + 1)]
    assert found.oracle == pytest.approx(np.mean(best))
    assert found.oracle <= found.area + 1e-12
    assert found.random == pytest.approx(error.mean())


def test_ties_stand_for_all_their_orders() -> None:
    error = torch.tensor([0.0, 0.1, 0.5, 0.9])
    tied = torch.tensor([1.0, 2.0, 2.0, 2.0])
    orders = itertools.permutations([2.0, 3.0, 4.0])
    areas = [risk_coverage(torch.tensor([1.0, *order]), error).area for order in orders]
    assert risk_coverage(tied, error).area == pytest.approx(np.mean(areas))


def test_the_references_are_those_of_all_orders() -> None:
    error = torch.tensor([0.3, 0.1, 0.9, 0.4, 0.2])
    areas = [
        risk_coverage(torch.tensor(order), error).area for order in itertools.permutations([0.0, 1.0, 2.0, 3.0, 4.0])
    ]
    found = risk_coverage(torch.zeros(5), error)
    assert found.random == pytest.approx(np.mean(areas))
    assert found.oracle == pytest.approx(min(areas))
    assert found.area == pytest.approx(found.random)
    assert found.gain == pytest.approx(0, abs=1e-6)
    assert risk_coverage(error, error).gain == pytest.approx(1)
    assert risk_coverage(-error, error).gain < 0


def test_examples_without_a_figure_are_left_out() -> None:
    nan = math.nan
    found = risk_coverage(torch.tensor([0.1, nan, 0.3, 0.2]), torch.tensor([0.5, 0.0, nan, 1.0]))
    assert found.risk.tolist() == [0.5, 0.75]
    empty = risk_coverage(torch.tensor([nan]), torch.tensor([1.0]))
    assert math.isnan(empty.area)
    assert math.isnan(empty.gain)
    assert math.isnan(risk_coverage(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5])).gain)
