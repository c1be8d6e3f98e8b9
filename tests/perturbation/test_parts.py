"""What the fast paths count and share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attn.encoders import CNN, BiLSTM, TokenMLP
from lightning_attn.perturbation.bilstm import PrefixKeys
from lightning_attn.perturbation.cnn import WindowKeys
from lightning_attn.perturbation.keys import SharedVectors
from lightning_attn.perturbation.perturbations import Delete, Replace
from lightning_attn.perturbation.pooled import PooledReader
from lightning_attn.perturbation.signatures import distinct
from lightning_attn.perturbation.sweep import probabilities, sweep
from lightning_attn.perturbation.variants import leave_one_out, unperturbed
from tests.helpers.toys import toy_batch, toy_network


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=12))
def test_distinct_numbers_and_where_they_first_stand(numbers):
    keys = torch.tensor(numbers, dtype=torch.int64)
    first, which = distinct(keys)
    assert torch.equal(keys[first][which], keys)
    assert len(first) == len(set(numbers))
    assert [numbers.index(numbers[place]) for place in first.tolist()] == first.tolist()


def test_pooling_is_a_weighted_sum_of_rows():
    nodes = SharedVectors(torch.randn(5, 3), torch.tensor([[0, 4, 4], [2, 1, 0]]))
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0]])
    expected = torch.einsum("rl,rlh->rh", weights, nodes.table[nodes.places])
    torch.testing.assert_close(nodes.pool(weights), expected)


@pytest.fixture
def states(monkeypatch):
    """Number of states computed, call by call."""
    counts = []
    compute = PrefixKeys._states

    def counting(self, inputs, word, parent, blocks):
        counts.append(len(word))
        return compute(self, inputs, word, parent, blocks)

    monkeypatch.setattr(PrefixKeys, "_states", counting)
    return counts


@pytest.mark.parametrize(
    ("perturbation", "expected"),
    # A direction reads the first n - 1 words once; without word i it then reads on to the end, n - 1 - i words.
    [(Delete(), 2 * (8 + 36)), (Replace(), 2 * (8 + 45))],
)
def test_beginnings_are_read_once(perturbation, expected, states):
    probabilities(toy_network(), toy_batch((9,)), leave_one_out(toy_batch((9,))), perturbation)
    assert states == [expected]


def test_nested_removals_share_beginnings(states):
    """Nine words without number 2, then without 2 and 5, then without 2, 5 and 7."""
    batch = toy_batch((9,))
    keep = torch.ones(1, 3, 9, dtype=torch.bool)
    keep[0, 0:, 2] = keep[0, 1:, 5] = keep[0, 2:, 7] = False
    probabilities(toy_network(), batch, keep)
    forward = 8 + 3 + 1  # 0 1 3 4 5 6 7 8, then 6 7 8 after 0 1 3 4, then 8 after 0 1 3 4 6
    backward = 8 + 4 + 5  # 8 7 6 5 4 3 1 0, then 4 3 1 0 after 8 7 6, then 6 4 3 1 0 after 8
    assert states == [forward + backward]


@pytest.fixture
def windows(monkeypatch):
    """Number of windows computed, call by call."""
    counts = []
    compute = WindowKeys._responses

    def counting(self, embeddings, windows, text):
        counts.append(len(windows))
        return compute(self, embeddings, windows, text)

    monkeypatch.setattr(WindowKeys, "_responses", counting)
    return counts


@pytest.mark.parametrize(
    ("perturbation", "touched"),
    # Three to each side of an inner position, and where it is overwritten itself; the ends have fewer.
    [(Delete(), 20 * 6 - 2 * (1 + 2 + 3)), (Replace(), 20 * 7 - 2 * (1 + 2 + 3))],
)
def test_only_touched_windows_are_computed(perturbation, touched, windows):
    network = toy_network(encoder=CNN(6, 2))
    batch = toy_batch((20,))
    keep = torch.cat([leave_one_out(batch), unperturbed(batch)], dim=1)
    probabilities(network, batch, keep, perturbation)
    assert windows == [20 + touched]


def test_equal_windows_of_several_variants_are_computed_once(windows):
    network = toy_network(encoder=CNN(6, 2, kernel_sizes=(3,)))
    batch = toy_batch((9,))
    keep = torch.ones(1, 2, 9, dtype=torch.bool)
    keep[0, :, 1] = keep[0, 1, 6] = False
    probabilities(network, batch, keep)
    assert windows == [9 + 4]  # those beside word 1, in both variants, and those beside word 6


def test_groups_stay_within_the_token_budget(monkeypatch):
    sizes = []
    answer = PooledReader.logits

    def recording(self, batch, examples, keep):
        sizes.append(len(examples) * int(batch.valid[examples].sum(dim=1).max()))
        return answer(self, batch, examples, keep)

    monkeypatch.setattr(PooledReader, "logits", recording)
    batch = toy_batch((30, 2, 17, 9, 25))
    for encoder in (BiLSTM(6, 5), CNN(6, 2), TokenMLP(6, 8)):
        sizes.clear()
        sweep(toy_network(encoder=encoder), batch, {"loo": leave_one_out(batch)}, max_tokens=64)
        assert len(sizes) > 10
        assert max(sizes) <= 64
