from __future__ import annotations

import pytest
import torch

from lightning_attn.errors import InputError
from lightning_attn.metrics import (
    AOPC,
    IOUF1,
    AdversarialJSD,
    Comprehensiveness,
    EffectiveTokens,
    Entropy,
    EvidenceAUPRC,
    EvidenceAUROC,
    KendallSignificant,
    KendallTau,
    LeakedBits,
    LogOdds,
    MaxAttention,
    PermutationTVD,
    SpecialMass,
    Sufficiency,
    TokenF1,
)
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
    span_matches,
    special_mass,
    sufficiency,
    token_f1,
)
from tests.toys import toy_batch, toy_network

BATCH = toy_batch(lengths=(7, 5, 12, 4), special=True, evidence=True)
NETWORK = toy_network(attend_special=True)
with torch.no_grad():
    OUTPUT = NETWORK(BATCH)
SCORES, OTHER = torch.rand(4, 12), torch.rand(4, 12)
FULL, PERTURBED = torch.rand(4), torch.rand(4, 5)

CASES = [
    (KendallTau(), (SCORES, OTHER, BATCH), kendall_tau(SCORES, OTHER, BATCH.inner).tau),
    (Comprehensiveness(), (FULL, PERTURBED, BATCH.index), comprehensiveness(FULL, PERTURBED)),
    (Sufficiency(), (FULL, PERTURBED, BATCH.index), sufficiency(FULL, PERTURBED)),
    (AOPC(), (FULL, PERTURBED, BATCH.index), aopc(FULL, PERTURBED)),
    (LogOdds(), (FULL, PERTURBED, BATCH.index), log_odds(FULL, PERTURBED)),
    (PermutationTVD(9), (NETWORK, OUTPUT, BATCH), permutation_tvd(NETWORK, OUTPUT, BATCH, 9)),
    (AdversarialJSD(), (NETWORK, OUTPUT, BATCH), adversarial_jsd(NETWORK, OUTPUT, BATCH)),
    (Entropy(), (OUTPUT.attention, BATCH.index), entropy(OUTPUT.attention)),
    (EffectiveTokens(), (OUTPUT.attention, BATCH.index), effective_tokens(OUTPUT.attention)),
    (MaxAttention(), (OUTPUT.attention, BATCH.index), max_attention(OUTPUT.attention)),
    (SpecialMass(), (OUTPUT.attention, BATCH.special, BATCH.index), special_mass(OUTPUT.attention, BATCH.special)),
    (EvidenceAUPRC(), (SCORES, BATCH), auprc(SCORES, BATCH.evidence, BATCH.inner)),
    (EvidenceAUROC(), (SCORES, BATCH), auroc(SCORES, BATCH.evidence, BATCH.inner)),
    (TokenF1(0.4), (SCORES, BATCH), token_f1(SCORES, BATCH.evidence, BATCH.inner, 0.4)),
]


@pytest.mark.parametrize(("metric", "arguments", "values"), CASES, ids=lambda case: type(case).__name__)
def test_a_class_is_the_mean_of_its_twin(metric, arguments, values):
    metric.update(*arguments)
    metric.update(*arguments)  # the same examples again
    assert metric.compute().item() == pytest.approx(values.double().nanmean().item(), abs=1e-6)
    assert metric.count == int((~values.isnan()).sum())


def test_share_of_significant_examples():
    x = torch.arange(12.0).expand(4, -1)
    y = torch.stack([x[0], x[0].flip(0), torch.tensor([1.0, 0] * 6), torch.ones(12)])
    batch = toy_batch(lengths=(12, 12, 12, 12))
    metric = KendallSignificant()
    metric.update(x, y, batch)
    assert metric.compute().item() == pytest.approx(2 / 3)
    assert metric.skipped == 1


def test_log_odds_counts_its_floors():
    metric = LogOdds()
    metric.update(
        torch.tensor([0.5, torch.nan]), torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 1])
    )
    metric.compute()
    assert metric.floors == 2


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
        EvidenceAUPRC().update(SCORES, BATCH.replace(evidence=None))
