from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from lightning_attn.metrics.functional.plausibility import auprc, auroc, f1, span_matches, token_f1


def rows(seed: int, count: int = 40, width: int = 12):
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(count, width, generator=generator) * 6).floor() / 6  # ties
    evidence = (torch.rand(count, width, generator=generator) < 0.35).float()
    evidence[torch.rand(count, width, generator=generator) < 0.1] = torch.nan
    inner = torch.arange(width) < torch.randint(1, width + 1, (count, 1), generator=generator)
    return scores, evidence, inner


def trapezoids(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    return auc(recall, precision)


def auprc_trapezoid(scores, evidence, inner):
    return auprc(scores, evidence, inner, trapezoid=True)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(auprc, average_precision_score), (auroc, roc_auc_score), (auprc_trapezoid, trapezoids)]
)
def test_curves_equal_scikit_learn_with_ties_and_unknowns(ours, theirs):
    scores, evidence, inner = rows(0)
    found = ours(scores, evidence, inner)
    defined = 0
    for row in range(len(scores)):
        counted = inner[row] & ~evidence[row].isnan()
        truth = evidence[row][counted].numpy()
        if truth.sum() in (0, len(truth)):
            assert found[row].isnan()
        else:
            defined += 1
            assert found[row].item() == pytest.approx(theirs(truth, scores[row][counted].numpy()), abs=1e-6)
    assert defined > 20


@pytest.mark.parametrize("fraction", [None, 0.3])
def test_token_f1_equals_scikit_learn(fraction):
    scores, evidence, inner = rows(1)
    found = token_f1(scores, evidence, inner, fraction)
    for row in range(len(scores)):
        counted = inner[row] & ~evidence[row].isnan()
        truth = evidence[row][counted].numpy() > 0
        if not truth.any():
            assert found[row].isnan()
            continue
        size = truth.sum() if fraction is None else max(1, round(fraction * len(truth)))
        predicted = np.zeros_like(truth)
        predicted[np.argsort(-scores[row][counted].numpy(), kind="stable")[:size]] = True
        assert found[row].item() == pytest.approx(f1_score(truth, predicted), abs=1e-6)


def brute_spans(marked) -> list[set[int]]:
    spans: list[set[int]] = []
    for i, flag in enumerate(marked):
        if flag and i and marked[i - 1]:
            spans[-1].add(i)
        elif flag:
            spans.append({i})
    return spans


@given(
    st.lists(st.booleans(), min_size=1, max_size=14),
    st.lists(st.integers(0, 5), min_size=14, max_size=14),
    st.sampled_from([0.5, 0.3, 1.0]),
    st.sampled_from([None, 0.4]),
)
@settings(max_examples=200, deadline=None)
def test_span_matches_equal_erasers_definition(truth, numbers, threshold, fraction):
    evidence = torch.tensor([truth]).float()
    scores = torch.tensor([numbers[: len(truth)]]).float()
    inner = torch.ones_like(evidence, dtype=torch.bool)
    precision, recall = span_matches(scores, evidence, inner, fraction, threshold)
    gold = brute_spans(truth)
    if not gold:
        assert precision.isnan()
        assert recall.isnan()
        return
    size = sum(truth) if fraction is None else max(1, round(fraction * len(truth)))
    chosen = np.argsort(-scores[0].numpy(), kind="stable")[:size]
    predicted = brute_spans([i in chosen for i in range(len(truth))])
    hits = sum(max(len(p & g) / len(p | g) for g in gold) >= threshold for p in predicted)
    assert precision.item() == pytest.approx(hits / len(predicted))
    assert recall.item() == pytest.approx(hits / len(gold))


def test_padding_changes_nothing():
    scores, evidence, inner = rows(2)
    wide = [torch.nn.functional.pad(tensor, (0, 9)) for tensor in (scores, evidence, inner)]
    for measure in (auprc, auroc, token_f1):
        assert torch.equal(measure(scores, evidence, inner).nan_to_num(9), measure(*wide).nan_to_num(9))
    for narrow, padded in zip(span_matches(scores, evidence, inner), span_matches(*wide), strict=True):
        assert torch.equal(narrow.nan_to_num(9), padded.nan_to_num(9))


def test_graded_evidence_counts_if_there_is_any():
    scores, graded = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0.5, 1.0, 0.0]])
    inner = torch.ones(1, 3, dtype=torch.bool)
    assert auprc(scores, graded, inner).item() == 1.0


def test_f1_of_nothing_is_zero():
    torch.testing.assert_close(f1(torch.tensor([0.0, 0.5]), torch.tensor([0.0, 1.0])), torch.tensor([0.0, 2 / 3]))
