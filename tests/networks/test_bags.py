"""Networks of bags: packed as padded, order that says nothing, and each pooling against its formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_attn.attention import MultiHeadGatedAttention, UniformAttention
from lightning_attn.encoders import Identity, LeNet, SequenceCNN
from lightning_attn.errors import InputError
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import AdditiveBagNetwork, BagNetwork, ClassBagNetwork, MaxBagNetwork, MultiHeadBagNetwork
from lightning_attn.types import AttentionOutput, Batch, DataSchema
from tests.helpers.toy_bags import BAG_NETWORKS, small_lenet, toy_bag_network, toy_bags

KINDS = pytest.mark.parametrize("kind", BAG_NETWORKS)
HEADS = ["multihead", "multihead-additive", "class"]


def shuffled(batch: Batch, row: int, seed: int = 0) -> tuple[Batch, Tensor]:
    """One bag alone with its instances in another order, and that order."""
    size = int(batch.valid[row].sum())
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    one = batch.select(torch.tensor([row]))
    return one.replace(inputs=one.inputs[:, order], valid=one.valid[:, :size], special=one.special[:, :size]), order


def same(one: AttentionOutput, other: AttentionOutput, batch: Batch) -> None:
    torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.attention, other.attention, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.scores[batch.valid], other.scores[batch.valid], atol=1e-5, rtol=1e-5)


@KINDS
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_packed_is_as_padded(kind: str, sizes: list[int], seed: int) -> None:
    network, batch = toy_bag_network(kind), toy_bags(sizes, seed)
    packed, padded = network(batch.pack()), network(batch)
    same(packed, padded, batch)
    torch.testing.assert_close(packed.values, padded.values[batch.valid], atol=1e-5, rtol=1e-5)


@KINDS
def test_packed_learns_as_padded(kind: str) -> None:
    gradients = []
    for batch in (toy_bags(), toy_bags().pack()):
        network = toy_bag_network(kind)
        network(batch).logits.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-4)


# Toy patches without a place all score 0, and which of equals is selected goes by their order.
@pytest.mark.parametrize("kind", [kind for kind in BAG_NETWORKS if kind != "patches-selector"])
def test_the_order_of_the_instances_says_nothing(kind: str) -> None:
    network, batch = toy_bag_network(kind), toy_bags()
    together = network(batch)
    for row in range(len(batch)):
        bag, order = shuffled(batch, row)
        alone = network(bag)
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.attention[0], together.attention[row, order], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network(bag.pack()).logits, alone.logits, atol=1e-5, rtol=1e-5)


@KINDS
def test_many_attentions_at_once_are_as_one_by_one(kind: str) -> None:
    network, batch = toy_bag_network(kind), toy_bags()
    weights = torch.rand(4, 3, 12) * batch.valid[:, None]
    values = network(batch).values
    expected = torch.stack([network.classify(values, one, batch) for one in weights.unbind(dim=1)], dim=1)
    torch.testing.assert_close(network.classify_many(values, weights, batch), expected, atol=1e-5, rtol=1e-5)


@KINDS
@pytest.mark.parametrize("multi_label", [False, True])
def test_mixed_precision_works_packed(kind: str, multi_label: bool) -> None:
    network, batch = toy_bag_network(kind, classes=2, multi_label=multi_label), toy_bags(classes=2).pack()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(batch)
    torch.testing.assert_close(output.attention.float().sum(dim=-1), torch.ones(4), atol=2e-2, rtol=0)
    torch.testing.assert_close(output.logits.float(), network(batch).logits, atol=0.1, rtol=0.1)


def test_mean_and_max_pooling_are_what_they_say() -> None:
    batch = toy_bags()
    for network, pooled in (
        (BagNetwork(Identity(), UniformAttention()), lambda bag: bag.mean(dim=0)),
        (MaxBagNetwork(Identity()), lambda bag: bag.amax(dim=0)),
    ):
        network.build(DataSchema(num_classes=3, feature_shape=(6,))).eval()
        expected = [network.head(pooled(bag[valid])) for bag, valid in zip(batch.inputs, batch.valid, strict=True)]
        torch.testing.assert_close(network(batch.pack()).logits, torch.stack(expected))


def test_the_weight_of_max_pooling_is_the_share_of_the_maxima() -> None:
    features = torch.tensor([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    batch = Batch(features[None], valid, ~valid, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    network = MaxBagNetwork(Identity()).build(DataSchema(num_classes=2, feature_shape=(4,)))
    third = 1 / 3  # the last feature is the same everywhere, and the third one in two instances
    expected = torch.tensor([[1 + 0.5 + third, 1 + 0.5 + third, third]]) / 4
    torch.testing.assert_close(network(batch).attention, expected)
    torch.testing.assert_close(network(batch.pack()).attention, expected)


@pytest.mark.parametrize("kind", HEADS)
def test_attention_heads_pool_by_themselves(kind: str) -> None:
    network, batch = toy_bag_network(kind), toy_bags()
    output = network(batch)
    hidden = network.encoder(batch.inputs)
    scores = network.attention.score(hidden) / network.attention.temperature
    for row, size in enumerate(batch.valid.sum(dim=1)):
        weights = scores[row, :size].softmax(dim=0)  # (n, M)
        torch.testing.assert_close(output.heads[row, :, :size], weights.T, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(output.attention[row, :size], weights.mean(dim=1), atol=1e-6, rtol=1e-5)
        pooled = weights.T @ hidden[row, :size]  # (M, H)
        if isinstance(network, ClassBagNetwork):
            layer = network.head.layers
            logits = torch.stack([layer.weight[c] @ pooled[c] + layer.bias[c] for c in range(3)])
        else:
            logits = network.head(pooled.flatten())
        torch.testing.assert_close(output.logits[row], logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_attention_heads_learn_as_if_pooled_by_themselves(kind: str) -> None:
    network, batch = toy_bag_network(kind).double(), toy_bags()
    batch = batch.replace(inputs=batch.inputs.double())
    network(batch).logits.square().sum().backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    hidden = network.encoder(batch.inputs)
    weights = (network.attention.score(hidden) / network.attention.temperature).masked_fill(
        ~batch.valid[..., None], -torch.inf
    )
    pooled = torch.einsum("blm,blh->bmh", weights.softmax(dim=1), hidden).flatten(1)
    network.head(pooled).square().sum().backward()
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_attention_heads_that_saturate_stay_ranked_and_differentiable() -> None:
    network, batch = toy_bag_network("multihead"), toy_bags()
    with torch.no_grad():
        network.attention.directions.weight.mul_(1e4)
    output = network(batch)
    assert int((output.attention[2] == 0).sum()) >= 8, "nearly all weights of this bag have become 0"
    assert len(output.scores[2].unique()) == 12, "and the scores still rank them"
    torch.testing.assert_close(output.scores.softmax(dim=-1), output.learned, atol=1e-5, rtol=1e-5)
    output.logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_random_pretraining_shows_nothing_of_the_scorer(kind: str) -> None:
    logits = []
    for scale in (1.0, 5.0):
        network, batch = toy_bag_network(kind).train(), toy_bags().pack()
        network.set_mitigation(RandomPretraining(epochs=2))
        with torch.no_grad():
            for parameter in network.attention.parameters():
                parameter.mul_(scale)
        output = network(batch)
        logits.append(output.logits)
        assert (output.heads[0, 0] - output.heads[0, 1]).abs().max() > 0.01, "each attention head is drawn for itself"
        output.logits.sum().backward()
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.attention.parameters())
    assert torch.equal(*logits)


def test_max_pooling_refuses_random_weights() -> None:
    network = toy_bag_network("max").train()
    network.set_mitigation(RandomPretraining(epochs=1, then="finetune"))
    with pytest.raises(InputError, match="Max pooling has no weights"):
        network(toy_bags())


def test_contributions_add_up_to_the_logits() -> None:
    network, batch = toy_bag_network("sum"), toy_bags()
    assert isinstance(network, AdditiveBagNetwork)
    output = network(batch)
    added = network.contributions(output.values, output.attention, batch)
    torch.testing.assert_close((added * batch.valid[..., None]).sum(dim=1), output.logits)
    one = network.head(output.attention[2, 3] * output.values[2, 3])
    torch.testing.assert_close(added[2, 3], one)


@pytest.mark.parametrize("side", [4, 8, 28])
@pytest.mark.parametrize("colors", [1, 3])
def test_lenet_reads_images_of_any_size(side: int, colors: int) -> None:
    batch = toy_bags((3, 1), feature_shape=(colors, side, side))
    network = BagNetwork(small_lenet()).build(DataSchema(num_classes=2, feature_shape=(colors, side, side))).eval()
    same(network(batch.pack()), network(batch), batch)


def test_the_published_lenet_is_the_default() -> None:
    encoder = LeNet()
    encoder.make_layers(DataSchema(num_classes=2, feature_shape=(1, 28, 28)))
    shapes = [tuple(parameter.shape) for parameter in encoder.parameters() if parameter.dim() > 1]
    assert shapes == [(20, 1, 5, 5), (50, 20, 5, 5), (500, 50 * 7 * 7)]


def test_a_pattern_counts_wherever_it_stands() -> None:
    encoder = SequenceCNN(5, width=3)
    encoder.make_layers(DataSchema(num_classes=2, feature_shape=(9, 4)))
    sequence = torch.zeros(2, 9, 4)
    sequence[0, 2:5], sequence[1, 4:7] = torch.eye(4)[:3], torch.eye(4)[:3]
    early, late = encoder(sequence[None])[0]
    torch.testing.assert_close(early, late)
    assert early.abs().sum() > 0


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (BagNetwork(), None, "reads features of instances, but the data are token ids"),
        (BagNetwork(LeNet()), (64,), "reads images of shape"),
        (BagNetwork(LeNet()), (1, 3, 9), "at least 4 x 4 pixels"),
        (BagNetwork(SequenceCNN(width=8)), (7, 4), "at least width=8 long"),
        (BagNetwork(SequenceCNN()), (7,), "reads sequences of shape"),
    ],
)
def test_data_that_do_not_suit_are_refused(network: BagNetwork, shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network.build(DataSchema(num_classes=2, vocabulary_size=9, feature_shape=shape))


def test_at_least_one_attention_head() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MultiHeadBagNetwork(Identity(), MultiHeadGatedAttention(), heads=0)
