from __future__ import annotations

import pytest
import torch

from lightning_attn.encoders import TokenMLP
from lightning_attn.perturbation.budget import Fractions
from lightning_attn.perturbation.perturbations import Delete, Pad, Replace
from lightning_attn.perturbation.sweep import output_change, probabilities, sweep
from lightning_attn.perturbation.variants import leave_one_out, ranks, top_k_kept, top_k_removed
from lightning_attn.types import Batch
from tests.helpers.toys import alone, toy_batch, toy_network


def by_hand(network, batch: Batch, keep: torch.Tensor, perturbation) -> torch.Tensor:
    """Every variant as a text of its own, made with Python lists."""
    result = torch.zeros(*keep.shape[:2], network.schema.num_classes)
    for b in range(keep.shape[0]):
        length = int(batch.valid[b].sum())
        for v in range(keep.shape[1]):
            ids, special = [], []
            for i in range(length):
                stays = bool(keep[b, v, i]) or bool(batch.special[b, i])
                if stays or not isinstance(perturbation, Delete):
                    other = 1 if isinstance(perturbation, Replace) else 0
                    ids.append(int(batch.inputs[b, i]) if stays else other)
                    special.append(bool(batch.special[b, i]))
            empty = not ids
            variant = Batch(
                inputs=torch.tensor([ids or [0]]),
                valid=torch.tensor([[not empty] * max(1, len(ids))]),
                special=torch.tensor([special or [False]]),
                target=batch.target[b : b + 1],
                index=batch.index[b : b + 1],
            )
            with torch.no_grad():
                result[b, v] = network(variant).logits.softmax(-1)[0]
    return result


@pytest.mark.parametrize("perturbation", [Delete(), Replace(), Pad()])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 40, 16384])
def test_variants_are_what_a_loop_over_texts_gives(perturbation, special, max_tokens):
    batch, network = toy_batch(special=special), toy_network()
    keep = torch.rand(4, 9, 12, generator=torch.Generator().manual_seed(1)) < 0.6
    found = probabilities(network, batch, keep, perturbation, max_tokens)
    torch.testing.assert_close(found, by_hand(network, batch, keep, perturbation), atol=1e-5, rtol=0)


def test_padding_changes_nothing():
    batch, network = toy_batch(special=True, pad_to=40), toy_network()
    together = probabilities(network, batch, leave_one_out(batch))
    for row in range(len(batch)):
        single = alone(batch, row)
        separate = probabilities(network, single, leave_one_out(single))
        torch.testing.assert_close(together[row, : single.valid.shape[1]], separate[0], atol=1e-5, rtol=0)


class Counting:
    """Counts the rows and positions that a network reads."""

    def __init__(self, network):
        self.calls: list[torch.Size] = []
        network.register_forward_pre_hook(lambda module, arguments: self.calls.append(arguments[0].inputs.shape))


def test_equal_variants_run_once_and_untouched_ones_reuse_the_prediction():
    batch, network = toy_batch(lengths=(5, 3)), toy_network()
    counting = Counting(network)
    keep = torch.cat([leave_one_out(batch)] * 3, dim=1)
    with torch.no_grad():
        full = network(batch).logits.softmax(-1)
    counting.calls.clear()
    found = probabilities(network, batch, keep, full=full)
    assert sum(shape[0] for shape in counting.calls) == 5 + 3
    assert torch.equal(found[1, 3], full[1])  # position 3 of the second text is padding
    counting.calls.clear()
    probabilities(network, batch, keep)
    assert sum(shape[0] for shape in counting.calls) == 5 + 3 + 1  # only the second text has an untouched variant


def test_groups_stay_within_the_token_budget():
    batch, network = toy_batch(lengths=(30, 2, 17, 9, 25)), toy_network()
    counting = Counting(network)
    probabilities(network, batch, leave_one_out(batch), max_tokens=64)
    assert all(rows * width <= 64 for rows, width in counting.calls)
    assert len(counting.calls) <= sum(rows for rows, _ in counting.calls) / 2


def test_modes_and_gradients_are_left_alone():
    batch, network = toy_batch(), toy_network()
    network.train()
    network.head.eval()
    result = probabilities(network, batch, leave_one_out(batch))
    assert network.training
    assert not network.head.training
    assert not result.requires_grad


def test_several_requests_share_one_sweep():
    batch, network = toy_batch(), toy_network()
    scores = torch.rand(4, 12, generator=torch.Generator().manual_seed(2))
    counts = Fractions().counts(batch)
    requests = {
        "one": leave_one_out(batch),
        "without": top_k_removed(scores, batch, counts),
        "only": top_k_kept(scores, batch, counts),
    }
    counting = Counting(network)
    found = sweep(network, batch, requests)
    together = sum(shape[0] for shape in counting.calls)
    counting.calls.clear()
    for name, keep in requests.items():
        torch.testing.assert_close(found[name], probabilities(network, batch, keep), atol=1e-5, rtol=0)
    assert together < sum(shape[0] for shape in counting.calls)
    assert sweep(network, batch, {}) == {}


def test_rankings_are_stable_and_leave_specials_out():
    batch = toy_batch(lengths=(6,), special=True)
    scores = torch.tensor([[9.0, 1.0, 2.0, 1.0, 2.0, 9.0]])
    assert ranks(scores, batch)[0, 1:5].tolist() == [2, 0, 3, 1]
    counts = torch.tensor([[1, 3]])
    removed, kept = top_k_removed(scores, batch, counts), top_k_kept(scores, batch, counts)
    assert removed[0].int().tolist() == [[1, 1, 0, 1, 1, 1], [1, 0, 0, 1, 0, 1]]
    assert kept[0].int().tolist() == [[1, 0, 1, 0, 0, 1], [1, 1, 1, 0, 1, 1]]


def test_a_bag_loses_instances_or_gets_zeros():
    bag = Batch(
        inputs=torch.arange(1.0, 13.0).reshape(1, 4, 3),
        valid=torch.tensor([[True, True, True, False]]),
        special=torch.zeros(1, 4, dtype=torch.bool),
        target=torch.tensor([0]),
        index=torch.tensor([0]),
    )
    keep = torch.tensor([[True, False, True, True]])
    schema = toy_network().schema
    assert Delete().apply(bag, keep, schema).inputs.tolist() == [[[1, 2, 3], [7, 8, 9]]]
    assert Replace().apply(bag, keep, schema).inputs.tolist() == [[[1, 2, 3], [0, 0, 0], [7, 8, 9]]]


def test_queries_and_indices_go_along_and_evidence_does_not():
    batch = toy_batch(lengths=(3, 5), evidence=True)
    batch = batch.replace(query=torch.tensor([[4, 5], [6, 0]]), query_valid=torch.tensor([[True, True], [True, False]]))
    network, seen = toy_network(), []
    network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    probabilities(network, batch, leave_one_out(batch))
    for variant in seen:
        assert variant.evidence is None
        for row in range(len(variant)):
            assert torch.equal(variant.query[row], batch.query[int(variant.index[row])])


def test_removing_the_only_token_leaves_an_empty_text():
    batch = toy_batch(lengths=(1,))
    for network in (toy_network(), toy_network(encoder=TokenMLP(6, 5))):
        empty = probabilities(network, batch, leave_one_out(batch))
        torch.testing.assert_close(empty[0, 0], network.head.layers.bias.detach().softmax(-1))


def test_output_change_is_the_mean_absolute_difference():
    change = output_change(torch.tensor([[0.6, 0.4]]), torch.tensor([[[0.5, 0.5], [0.6, 0.4]]]))
    torch.testing.assert_close(change, torch.tensor([[0.1, 0.0]]))
