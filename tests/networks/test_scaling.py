"""Scales of values: the formulas, written out for one token, and what they leave alone."""

import math

import pytest
import torch

from lightning_attn.attention import AdditiveAttention
from lightning_attn.encoders import CNN, BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.networks import ConvTaSc, FeatTaSc, LinTaSc, PooledNetwork, TypeScale, ValueScaling
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out
from lightning_attn.types import Batch, DataSchema
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
    test_value_path_is_what_the_logits_need_when_attention_is_given,
)
from tests.helpers.toys import VOCABULARY, toy_batch

KINDS = (LinTaSc, FeatTaSc, ConvTaSc, TypeScale)
SCHEMA = DataSchema(num_classes=2, vocabulary_size=VOCABULARY)


def network(scaling: ValueScaling | None, values: str = "local") -> PooledNetwork:
    torch.manual_seed(0)
    made = PooledNetwork(BiLSTM(6, 5, values=values), AdditiveAttention(4), scaling=scaling).build(SCHEMA)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


@pytest.fixture(params=KINDS)
def built(request: pytest.FixtureRequest) -> PooledNetwork:
    return network(request.param())


@pytest.fixture
def batch() -> Batch:
    return toy_batch([9, 4, 1, 6], seed=1)


def by_hand(scaling: ValueScaling, word: int, embedding: list[float]) -> float:
    numbers = scaling.word.weight[word].tolist()
    if isinstance(scaling, LinTaSc):
        return numbers[0] * math.fsum(embedding)
    if isinstance(scaling, FeatTaSc):
        return math.fsum(u * e for u, e in zip(numbers, embedding, strict=True))
    if isinstance(scaling, ConvTaSc):
        filters = zip(scaling.convolution.weight.tolist(), scaling.convolution.bias.tolist(), strict=True)
        return math.fsum(
            math.fsum(w * numbers[0] * e for w, e in zip(weights, embedding, strict=True)) + bias
            for weights, bias in filters
        )
    return numbers[0]


def test_scales_are_those_of_the_formula(built: PooledNetwork, batch: Batch) -> None:
    embeddings = built.embed(batch)
    scale = built.scaling(embeddings, batch)
    assert scale.shape == batch.valid.shape
    for row, place in [(0, 0), (0, 8), (1, 3), (2, 0)]:
        expected = by_hand(built.scaling, int(batch.inputs[row, place]), embeddings[row, place].tolist())
        assert scale[row, place].item() == pytest.approx(expected, abs=1e-5)


def test_values_are_scaled_and_the_attention_is_not(built: PooledNetwork, batch: Batch) -> None:
    plain, scaled = network(None), built
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if not k.startswith("scaling.")})
    expected, found = plain(batch), scaled(batch)
    assert torch.equal(found.attention, expected.attention)
    scale = scaled.scaling(scaled.embed(batch), batch)
    torch.testing.assert_close(found.values, expected.values * scale[..., None])
    torch.testing.assert_close(
        found.logits, plain.head(torch.einsum("bl,bl,blh->bh", expected.attention, scale, expected.values))
    )


def test_numbers_start_as_published() -> None:
    for kind in (LinTaSc, FeatTaSc, ConvTaSc):
        scaling = kind()
        scaling.build(DataSchema(num_classes=2, vocabulary_size=400), 10)
        assert 0.04 < scaling.word.weight.abs().max() <= 1 / 20
    scaling = TypeScale()
    scaling.build(SCHEMA, 10)
    assert (scaling.word.weight == 1).all()
    assert sum(parameter.numel() for parameter in ConvTaSc().parameters()) == 0


def test_parameters_on_sst_are_as_many_as_published() -> None:
    counts = []
    for kind in (LinTaSc, FeatTaSc, ConvTaSc):
        scaling = kind()
        scaling.build(DataSchema(num_classes=2, vocabulary_size=13686), 300)
        counts.append(sum(parameter.numel() for parameter in scaling.parameters()))
    assert counts == [13686, 13686 * 300, 18201]


def test_removals_are_read_with_their_scales(batch: Batch) -> None:
    torch.manual_seed(0)
    made = PooledNetwork(CNN(6, 3, values="local"), AdditiveAttention(4), scaling=LinTaSc()).build(SCHEMA).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(5)
    keep = leave_one_out(batch)
    torch.testing.assert_close(probabilities(made, batch, keep), probabilities(made, batch, keep, fast_path=False))
    text = batch.select(torch.tensor([0]))
    without = text.replace(
        inputs=text.inputs[:, 1:], valid=text.valid[:, 1:], special=text.special[:, 1:], evidence=None
    )
    torch.testing.assert_close(
        probabilities(made, text, leave_one_out(text))[0, 0], made(without).logits.softmax(-1)[0]
    )


def test_features_and_no_filters_are_refused() -> None:
    with pytest.raises(InputError, match="LinTaSc has a scale per word"):
        LinTaSc().build(DataSchema(num_classes=2, feature_shape=(4,)), 4)
    with pytest.raises(ValueError, match="at least 1 filter"):
        ConvTaSc(0)
