"""The fast path for bags against reading every variant anew, and when it is not taken."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_attn.attention import GatedAttention
from lightning_attn.encoders import MLP
from lightning_attn.networks import BagNetwork, InstanceNetwork
from lightning_attn.perturbation.bags import BagReader
from lightning_attn.perturbation.fast_path import variant_reader
from lightning_attn.perturbation.perturbations import Delete, Pad, Perturbation, Replace
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out, top_k_kept, top_k_removed
from lightning_attn.types import Batch, DataSchema
from tests.helpers.toy_bags import small_lenet, toy_bag_network, toy_bags

KNOWN = ("additive", "gated", "identity", "mean")


def requests(batch: Batch, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch.valid.shape, generator=generator)
    counts = torch.randint(1, 4, (len(batch), 3), generator=generator)
    keep = torch.rand(len(batch), 5, batch.valid.shape[1], generator=generator) < 0.5
    return {
        "leave one out": leave_one_out(batch),
        "without": top_k_removed(scores, batch, counts),
        "only": top_k_kept(scores, batch, counts),
        "random": keep,
        "nothing left": torch.zeros_like(keep[:, :1]),
    }


@pytest.mark.parametrize("perturbation", [Delete(), Replace(), Pad()], ids=lambda change: type(change).__name__)
@pytest.mark.parametrize("kind", KNOWN)
@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    max_tokens=st.sampled_from([1, 20, 16384]),
    multi_label=st.booleans(),
)
def test_it_gives_what_reading_anew_gives(
    kind: str, perturbation: Perturbation, sizes: list[int], seed: int, max_tokens: int, multi_label: bool
) -> None:
    network, batch = toy_bag_network(kind, multi_label=multi_label), toy_bags(sizes, seed)
    assert isinstance(variant_reader(network, perturbation), BagReader)
    for name, keep in requests(batch, seed).items():
        short = probabilities(network, batch, keep, perturbation, max_tokens)
        anew = probabilities(network, batch, keep, perturbation, max_tokens, fast_path=False)
        torch.testing.assert_close(short, anew, atol=1e-5, rtol=1e-5, msg=name)


def test_images_are_encoded_once() -> None:
    batch = toy_bags((6, 3), feature_shape=(1, 8, 8))
    network = BagNetwork(small_lenet()).build(DataSchema(num_classes=2, feature_shape=(1, 8, 8))).eval()
    seen: list[int] = []
    transform = network.encoder.transform
    network.encoder.transform = lambda instances: seen.append(len(instances)) or transform(instances)
    short = probabilities(network, batch, leave_one_out(batch), max_tokens=6)
    assert sum(seen) == 2 * (6 + 1), "two bags of six columns, and a blank for each"
    torch.testing.assert_close(short, probabilities(network, batch, leave_one_out(batch), fast_path=False))


class OtherEncoder(MLP):
    def forward(self, features: Tensor) -> Tensor:
        encoded = super().forward(features)
        return encoded - encoded.mean(dim=-2, keepdim=True)  # an instance is no longer read by itself


class OtherScores(GatedAttention):
    def score(self, keys: Tensor) -> Tensor:
        return super().score(keys - keys.mean(dim=-2, keepdim=True))


class OtherNetwork(BagNetwork):
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return super().encode(embeddings + embeddings.mean(dim=1, keepdim=True), batch)


class OtherChange(Delete):
    def apply(self, batch: Batch, keep: Tensor, schema: DataSchema) -> Batch:
        return super().apply(batch.replace(inputs=2 * batch.inputs), keep, schema)


def hooked(network: InstanceNetwork) -> InstanceNetwork:
    network.head.register_forward_hook(lambda module, inputs, output: 2 * output)
    return network


def half(network: InstanceNetwork) -> InstanceNetwork:
    return network.bfloat16()


def built(network: BagNetwork) -> BagNetwork:
    torch.manual_seed(0)
    return network.build(DataSchema(num_classes=3, feature_shape=(6,))).eval()


@pytest.mark.parametrize(
    ("make", "perturbation"),
    [
        (lambda: built(BagNetwork(OtherEncoder())), Delete()),
        (lambda: built(BagNetwork(attention=OtherScores())), Delete()),
        (lambda: built(OtherNetwork()), Delete()),
        (lambda: built(BagNetwork()), OtherChange()),
        (lambda: hooked(toy_bag_network()), Delete()),
        (lambda: half(toy_bag_network()), Delete()),
        (lambda: toy_bag_network("sum"), Delete()),
        (lambda: toy_bag_network("multihead"), Delete()),
        (lambda: toy_bag_network("class"), Delete()),
        (lambda: toy_bag_network("max"), Delete()),
    ],
)
def test_what_it_does_not_know_is_read_anew(make: Callable[[], InstanceNetwork], perturbation: Perturbation) -> None:
    network = make()
    assert not isinstance(variant_reader(network, perturbation), BagReader)
