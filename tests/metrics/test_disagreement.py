"""`disagreement` of an ensemble on a batch, and its means."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from lightning_attn.encoders import TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.metrics import ExampleMean, RiskCoverageGain, disagreement
from lightning_attn.networks import AttentionEnsemble
from lightning_attn.types import Batch
from tests.helpers.toy_bags import toy_bag_network, toy_bags
from tests.helpers.toys import alone, toy_batch, toy_network


@pytest.fixture
def network() -> AttentionEnsemble:
    return AttentionEnsemble([toy_network(seed=seed) for seed in range(4)])


@pytest.fixture
def batch() -> Batch:
    return toy_batch((7, 1, 12, 4), evidence=True)


def test_it_is_that_of_the_members(network: AttentionEnsemble, batch: Batch) -> None:
    found = disagreement(network, batch)
    attention = np.stack([member(batch).attention.detach().numpy() for member in network.members])
    for row in (0, 2, 3):
        length = int(batch.valid[row].sum())
        own = attention[:, row, :length]
        pairs = [stats.spearmanr(own[a], own[b]).statistic for a in range(4) for b in range(a)]
        assert found.rank_correlation[row] == pytest.approx(np.mean(pairs), abs=1e-6)
        assert found.largest_deviation[row] == pytest.approx(own.std(axis=0).max(), abs=1e-6)
        expected = roc_auc_score(batch.evidence[row, :length], own.mean(axis=0))
        assert found.attention_auroc[row] == pytest.approx(expected)
    assert found.jsd[1] == pytest.approx(0, abs=1e-7)
    assert found.rank_correlation[1].isnan()
    assert found.attention_auroc[1].isnan()


@pytest.mark.parametrize("max_tokens", [1, 30, 16384])
def test_neither_the_batch_nor_the_budget_matters(network: AttentionEnsemble, batch: Batch, max_tokens: int) -> None:
    together = vars(disagreement(network, batch, max_tokens=max_tokens))
    for row in range(len(batch)):
        single = vars(disagreement(network, alone(batch, row)))
        for name, value in together.items():
            torch.testing.assert_close(value[row], single[name][0], atol=1e-6, rtol=1e-5, equal_nan=True, msg=name)


def test_bags_and_data_without_evidence() -> None:
    network = AttentionEnsemble([toy_bag_network("gated"), toy_bag_network("additive")])
    bags = toy_bags()
    found = disagreement(network, bags.replace(evidence=None), top_n=1)
    assert found.attention_auroc.isnan().all()
    assert (found.jsd[[0, 2, 3]] > 0).all()
    assert ((found.top_overlap[[0, 2, 3]] == 0) | (found.top_overlap[[0, 2, 3]] == 1)).all()


def test_equal_words_are_tied_whatever_rounding_says(network: AttentionEnsemble) -> None:
    batch = toy_batch((9,))
    same = batch.replace(inputs=torch.full_like(batch.inputs, 5))
    alike = AttentionEnsemble([toy_network(seed=seed, encoder=TokenMLP(6, 5)) for seed in range(2)])
    assert disagreement(alike, same).rank_correlation.isnan().all()  # a network without context ranks nothing then
    apart = AttentionEnsemble([toy_network(seed=seed) for seed in range(2)])
    assert not disagreement(apart, same).rank_correlation.isnan().any()


def test_it_needs_two_members(batch: Batch) -> None:
    with pytest.raises(InputError, match="at least two of them, not 1"):
        disagreement(AttentionEnsemble([toy_network()]), batch)


def test_means_over_distinct_examples(network: AttentionEnsemble, batch: Batch) -> None:
    found = disagreement(network, batch)
    for name, values in vars(found).items():
        metric = ExampleMean(lambda batch, name=name: getattr(disagreement(network, batch), name))
        metric.update(batch)
        metric.update(batch.select(torch.tensor([0, 1])))  # seen before: counts once
        assert float(metric.compute()) == pytest.approx(float(values[~values.isnan()].mean()), abs=1e-6)
        assert metric.skipped == int(values.isnan().sum())


def test_the_gain_is_over_distinct_examples() -> None:
    metric = RiskCoverageGain()
    error = torch.tensor([0.1, 0.5, 0.3, torch.nan])
    metric.update(error, error, torch.arange(4))
    metric.update(torch.tensor([9.0]), torch.tensor([0.0]), torch.tensor([0]))
    assert float(metric.compute()) == pytest.approx(1)
    assert (metric.count, metric.skipped) == (3, 1)
    assert metric.result is not None
    assert metric.result.oracle == pytest.approx(metric.result.area)
