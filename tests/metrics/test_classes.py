from __future__ import annotations

from functools import partial

import pytest
import torch

from lightning_attn.errors import InputError
from lightning_attn.metrics import IOUF1, ExampleMean, LeakedBits
from lightning_attn.metrics.functional import (
    adversarial_jsd,
    aopc,
    auprc,
    auroc,
    comprehensiveness,
    effective_tokens,
    entropy,
    kendall_tau,
    log_odds,
    max_attention,
    permutation_tvd,
    significant,
    span_matches,
    special_mass,
    sufficiency,
    token_f1,
)
from lightning_attn.metrics.functional.erasure import log_odds_floors
from lightning_attn.metrics.functional.plausibility import evidence_of
from tests.helpers.toys import toy_batch, toy_network

BATCH = toy_batch(lengths=(7, 5, 12, 4), special=True, evidence=True)
NETWORK = toy_network(attend_special=True)
with torch.no_grad():
    OUTPUT = NETWORK(BATCH)
SCORES, OTHER = torch.rand(4, 12), torch.rand(4, 12)
FULL, PERTURBED = torch.rand(4), torch.rand(4, 5)

INNER, INDEX, EVIDENCE = BATCH.inner, BATCH.index, BATCH.evidence
CASES = [
    (lambda x, y, inner: kendall_tau(x, y, inner).tau, (SCORES, OTHER, INNER)),
    (comprehensiveness, (FULL, PERTURBED)),
    (sufficiency, (FULL, PERTURBED)),
    (aopc, (FULL, PERTURBED)),
    (log_odds, (FULL, PERTURBED)),
    (partial(permutation_tvd, permutations=9), (NETWORK, OUTPUT, BATCH)),
    (adversarial_jsd, (NETWORK, OUTPUT, BATCH)),
    (entropy, (OUTPUT.attention,)),
    (effective_tokens, (OUTPUT.attention,)),
    (max_attention, (OUTPUT.attention,)),
    (special_mass, (OUTPUT.attention, BATCH.special)),
    (auprc, (SCORES, EVIDENCE, INNER)),
    (auroc, (SCORES, EVIDENCE, INNER)),
    (partial(token_f1, fraction=0.4), (SCORES, EVIDENCE, INNER)),
]


@pytest.mark.parametrize(("function", "arguments"), CASES)
def test_a_mean_of_any_function_over_distinct_examples(function, arguments):
    metric, values = ExampleMean(function), function(*arguments)
    for _ in range(2):  # the second time the same examples
        metric.update(*arguments, *(() if arguments[-1] is BATCH else (INDEX,)))
    assert metric.compute().item() == pytest.approx(values.double().nanmean().item(), abs=1e-6)
    assert metric.count == int((~values.isnan()).sum())


def test_share_of_significant_examples():
    x = torch.arange(12.0).expand(4, -1)
    y = torch.stack([x[0], x[0].flip(0), torch.tensor([1.0, 0] * 6), torch.ones(12)])
    inner = torch.ones(4, 12, dtype=torch.bool)
    metric = ExampleMean(lambda x, y, inner: significant(kendall_tau(x, y, inner).p_value))
    metric.update(x, y, inner, torch.arange(4))
    assert metric.compute().item() == pytest.approx(2 / 3)
    assert metric.skipped == 1


def test_log_odds_counts_its_floors():
    assert log_odds_floors(torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])).tolist() == [2, 3]


def test_iou_f1_is_the_f1_of_means():
    precision, recall = span_matches(SCORES, BATCH.evidence, BATCH.inner)
    metric = IOUF1()
    metric.update(precision, recall, BATCH.index)
    p, r = precision.nanmean(), recall.nanmean()
    assert metric.compute().item() == pytest.approx((2 * p * r / (p + r)).item())


def test_leaked_bits_names_its_figures():
    metric = LeakedBits()
    for seed in range(25):
        batch = toy_batch(lengths=(7, 5, 12, 4), seed=seed)
        attention = torch.rand(4, 12).masked_fill(~batch.valid, 0)
        attention[:, 0] += 30 * batch.target
        metric.update(attention / attention.sum(-1, keepdim=True), batch.replace(index=batch.index + 4 * seed))
    found = metric.compute()
    bits = {"leaked_bits", "leaked_bits_low", "leaked_bits_high", "order_free_bits", "length_bits"}
    assert set(found) == bits | {"mask_only_accuracy", "fano_bits"}
    assert found["leaked_bits_low"] < found["leaked_bits"] < found["leaked_bits_high"]
    assert found["leaked_bits"] > 0.8
    assert metric.result.low < found["leaked_bits"] < metric.result.high


def test_plausibility_without_evidence_is_the_users_mistake():
    with pytest.raises(InputError, match="need evidence"):
        evidence_of(BATCH.replace(evidence=None))
