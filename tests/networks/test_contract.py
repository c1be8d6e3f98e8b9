"""The invariants of `AttentionNetwork`: every encoder x attention x head x place of the values, every bag network."""

import itertools

import pytest
import torch

from lightning_attn.attention import AdditiveAttention, Attention, DotAttention, GatedAttention, TopKSelection
from lightning_attn.encoders import CNN, BiLSTM, Encoder, TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.networks import AttentionNetwork, Classifier, LinearClassifier, MLPClassifier, PooledNetwork
from lightning_attn.types import Batch, DataSchema
from tests.helpers.contract import (  # noqa: F401 - collected here, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
    test_mixed_precision_gives_a_distribution_too,
    test_value_path_is_what_the_logits_need_when_attention_is_given,
)
from tests.helpers.toy_bags import BAG_NETWORKS, toy_bag_network, toy_bags
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=3, vocabulary_size=30)
ENCODERS = {
    "bilstm": lambda values: BiLSTM(8, 5, values=values, dropout=0.3),
    "cnn": lambda values: CNN(8, 3, values=values, dropout=0.3),
    "average": lambda values: TokenMLP(8, 7, values=values, dropout=0.3),
}
ATTENTIONS = {
    "additive": AdditiveAttention,
    "dot": lambda: DotAttention(temperature=0.5),
    "gated": lambda: GatedAttention(6, attend_special=True),
    "selection": lambda: TopKSelection(3),
}
HEADS = {"linear": LinearClassifier, "mlp": lambda: MLPClassifier(6, dropout=0.3)}
COMBINATIONS = list(itertools.product(ENCODERS, ("contextual", "local"), ATTENTIONS, HEADS))
BAGS = [("bag", kind) for kind in BAG_NETWORKS]


def network(encoder: Encoder, attention: Attention, head: Classifier) -> PooledNetwork:
    torch.manual_seed(0)
    return PooledNetwork(encoder, attention, head).build(SCHEMA).eval()


@pytest.fixture(params=COMBINATIONS + BAGS, ids="-".join)
def built(request: pytest.FixtureRequest) -> AttentionNetwork:
    if request.param in BAGS:
        return toy_bag_network(request.param[1])
    encoder, values, attention, head = request.param
    return network(ENCODERS[encoder](values), ATTENTIONS[attention](), HEADS[head]())


@pytest.fixture
def batch(request: pytest.FixtureRequest) -> Batch:
    bags = "built" in request.fixturenames and request.getfixturevalue("built").schema.feature_shape is not None
    return (toy_bags if bags else toy_batch)([9, 4, 1, 6], seed=1)


@pytest.mark.parametrize("name", ENCODERS)
def test_local_values_do_not_see_the_other_tokens(name: str, batch: Batch) -> None:
    changed = batch.replace(inputs=torch.where(torch.arange(9) == 3, 7, batch.inputs))
    local = network(ENCODERS[name]("local"), AdditiveAttention(), LinearClassifier())
    before, after = local(batch).values, local(changed).values
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[0, 3], after[0, 3])


@pytest.mark.parametrize(("name", "sees"), [("bilstm", True), ("cnn", True), ("average", False)])
def test_contextual_values_see_the_other_tokens(name: str, sees: bool, batch: Batch) -> None:
    changed = batch.replace(inputs=torch.where(torch.arange(9) == 3, 7, batch.inputs))
    contextual = network(ENCODERS[name]("contextual"), AdditiveAttention(), LinearClassifier())
    assert torch.equal(contextual(batch).values[0, 2], contextual(changed).values[0, 2]) is not sees


def test_special_tokens_get_no_attention_unless_asked(batch: Batch) -> None:
    batch = batch.replace(special=batch.valid & (torch.arange(9) == 0))
    without = network(TokenMLP(8, 7), DotAttention(), LinearClassifier())(batch).attention
    assert (without[[0, 1, 3], 0] == 0).all()
    assert without[2, 0] == 1, "a text of special tokens alone still needs a distribution"
    assert (
        network(TokenMLP(8, 7), DotAttention(attend_special=True), LinearClassifier())(batch).attention[:, 0] > 0
    ).all()


def test_temperature_sharpens(batch: Batch) -> None:
    built = network(CNN(8, 3), DotAttention(), LinearClassifier())
    warm = built(batch)
    built.attention.temperature = 0.1
    cold = built(batch)
    torch.testing.assert_close(warm.scores[batch.inner] * 10, cold.scores[batch.inner])
    assert cold.attention[0].max() > warm.attention[0].max()


def test_word_vectors_fill_known_rows_only() -> None:
    built = network(TokenMLP(4, 3), DotAttention(), LinearClassifier())
    before = built.encoder.embedding.weight.clone()
    vectors = torch.full((30, 4), float("nan"))
    vectors[5] = torch.arange(4.0)
    built.load_word_vectors(vectors)
    assert torch.equal(built.encoder.embedding.weight[5], torch.arange(4.0))
    assert torch.equal(built.encoder.embedding.weight[6:], before[6:])
    with pytest.raises(InputError, match="embedding_size to 7"):
        built.load_word_vectors(torch.zeros(30, 7))


def test_an_unbuilt_network_says_what_is_missing(batch: Batch) -> None:
    with pytest.raises(InputError, match="call build"):
        _ = PooledNetwork().schema


def test_features_are_refused_by_a_word_encoder() -> None:
    with pytest.raises(InputError, match="features of instances"):
        PooledNetwork().build(DataSchema(num_classes=2, feature_shape=(4,)))


@pytest.mark.parametrize("wrong", [lambda: DotAttention(temperature=0), lambda: CNN(kernel_sizes=(2, 3))])
def test_wrong_arguments_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"temperature must be positive|kernel_sizes must be odd"):
        wrong()
