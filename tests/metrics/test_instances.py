"""Pooled instance metrics, attention of a class, and AOPC-R, against scikit-learn and brute force."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_attn.errors import InputError
from lightning_attn.metrics import PooledAUROC, PooledAveragePrecision, class_log_weights, instance_aopc_r
from lightning_attn.metrics.functional import log_weights
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.budget import Steps
from lightning_attn.types import Batch
from tests.helpers.toy_bags import toy_bag_network, toy_bags


def pooled(batches: list[tuple[torch.Tensor, Batch]]) -> tuple[float, float]:
    metrics = PooledAUROC(), PooledAveragePrecision()
    for metric in metrics:
        for logs, batch in batches:
            metric.update(logs, batch)
    return float(metrics[0].compute()), float(metrics[1].compute())


def measured(seed: int, sizes: tuple[int, ...] = (7, 3, 12, 1)) -> tuple[torch.Tensor, Batch]:
    batch = toy_bags(sizes, seed)
    return class_log_weights(network := toy_bag_network(), network(batch), batch, batch.target), batch


def test_pooled_figures_rank_weight_times_size() -> None:
    batches = [measured(1), measured(2)]
    keys, scores = [], []
    for logs, batch in batches:
        for row, size in enumerate(batch.valid.sum(dim=1).tolist()):
            keys += batch.evidence[row, :size].tolist()
            scores += (logs[row, :size].exp() * size).tolist()
    assert pooled(batches) == pytest.approx((roc_auc_score(keys, scores), average_precision_score(keys, scores)))


def test_a_bag_counts_once_and_the_order_of_batches_says_nothing() -> None:
    batches = [measured(1), measured(2), measured(3)]
    again = [batches[2], batches[0], batches[1], batches[0]]
    assert pooled(again) == pytest.approx(pooled(batches), abs=1e-9)


def test_instances_of_unknown_evidence_are_left_out() -> None:
    logs, batch = measured(1)
    unknown = torch.where(torch.arange(12) < 2, torch.nan, batch.evidence)
    fewer = batch.replace(evidence=unknown)
    rest = torch.zeros_like(batch.valid) | (batch.valid & (torch.arange(12) >= 2))
    scores = logs + batch.valid.sum(dim=1, keepdim=True).log()
    expected = roc_auc_score(batch.evidence[rest], scores[rest].detach())
    assert pooled([(logs, fewer)])[0] == pytest.approx(expected)


def test_without_keys_there_is_nothing_to_find() -> None:
    logs, batch = measured(1)
    found = pooled([(logs, batch.replace(evidence=torch.zeros_like(batch.evidence)))])
    assert np.isnan(found).all()


def test_states_of_several_processes_are_put_together() -> None:
    batches = [measured(1), measured(2)]
    ranks = []
    for logs, batch in batches:
        metric = PooledAUROC()
        metric.update(logs, batch)
        ranks.append(metric)
    whole = PooledAUROC()
    for name in ("score", "key", "index", "size"):
        setattr(whole, name, [torch.cat(getattr(metric, name)) for metric in ranks])
    whole._update_count = 1
    assert float(whole.compute()) == pytest.approx(pooled(batches)[0])


@pytest.mark.parametrize("packed", [False, True])
def test_one_attention_a_class_is_measured_by_the_class(packed: bool) -> None:
    network, batch = toy_bag_network("class"), toy_bags()
    output = network(batch.pack() if packed else batch)
    for classes in (torch.tensor([0, 1, 2, 1]), torch.tensor([2, 2, 0, 0])):
        logs = class_log_weights(network, output, batch, classes)
        expected = output.heads[torch.arange(4), classes]
        torch.testing.assert_close(logs.exp().masked_fill(~batch.valid, 0.0).float(), expected, atol=1e-6, rtol=1e-5)
    several = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]])
    weights = class_log_weights(network, output, batch, several).exp().masked_fill(~batch.valid, 0.0)
    torch.testing.assert_close(weights[0].float(), output.heads[0, :2].mean(dim=0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights[1].float(), output.attention[1], atol=1e-6, rtol=1e-5)


def test_one_attention_for_all_classes_is_measured_as_it_is() -> None:
    for kind in ("gated", "multihead", "max", "mean"):
        network, batch = toy_bag_network(kind), toy_bags()
        output = network(batch)
        weights = class_log_weights(network, output, batch, batch.target).exp().masked_fill(~batch.valid, 0.0)
        torch.testing.assert_close(weights.float(), output.attention, atol=1e-6, rtol=1e-5)


def test_aopc_r_is_what_removing_one_after_the_other_gives() -> None:
    network, batch, orders = toy_bag_network("gated"), toy_bags(), 3
    found = instance_aopc_r(network, batch, orders=orders, seed=2)
    assert found.isnan().tolist() == [False, True, False, False], "a bag of one instance cannot lose any"
    counts = Steps().counts(batch)
    for row in (0, 2, 3):
        size = int(batch.valid[row].sum())
        bag = batch.inputs[row, :size]
        output = network(batch)
        label = int(output.logits[row].argmax())

        def probability(rows: list[int], bag: torch.Tensor = bag, label: int = label) -> float:
            valid = torch.ones(1, len(rows), dtype=torch.bool)
            one = Batch(bag[rows][None], valid, ~valid, torch.zeros(1), torch.zeros(1))
            return float(network(one).logits.softmax(dim=-1)[0, label].detach())

        rankings = [log_weights(output.scores, batch.valid)[row]]
        rankings += [uniform(batch.index, 12, 2 * orders + number)[row] for number in range(orders)]
        curves = []
        for ranking in rankings:
            order = ranking[:size].argsort(descending=True, stable=True).tolist()
            drops = [probability(list(range(size))) - probability(order[k:]) for k in counts[row].tolist()]
            curves.append(np.mean(drops))
        assert float(found[row]) == pytest.approx(curves[0] - np.mean(curves[1:]), abs=1e-5)


def test_aopc_r_does_not_depend_on_the_batch() -> None:
    network, batch = toy_bag_network("class"), toy_bags()
    together = instance_aopc_r(network, batch.pack())
    for row in (0, 2, 3):
        alone = instance_aopc_r(network, batch.select(torch.tensor([row])))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)


def test_aopc_r_of_a_ranking_that_is_right_beats_random_orders() -> None:
    # One instance decides: attention on it, and the prediction falls when it goes.
    network = toy_bag_network("identity", classes=2, feature_shape=(1,))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.attention.project.weight.fill_(5.0)
        network.attention.direction.weight.fill_(9.0)
        network.head.layers.weight[1] = 4.0
    features = torch.zeros(1, 10, 1)
    features[0, 4] = 1.0
    valid = torch.ones(1, 10, dtype=torch.bool)
    batch = Batch(features, valid, ~valid, torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    right = float(instance_aopc_r(network, batch, orders=50))
    with torch.no_grad():
        network.attention.direction.weight.fill_(-9.0)
    assert right > 0.1
    assert right > float(instance_aopc_r(network, batch, orders=50)) + 0.1


def test_aopc_r_needs_an_order_to_compare_with() -> None:
    with pytest.raises(InputError, match="at least 1 random order"):
        instance_aopc_r(toy_bag_network(), toy_bags(), orders=0)
