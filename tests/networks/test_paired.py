"""`PairedNetwork`: the contract of every network, and what a query adds to it."""

import itertools
import math

import pytest
import torch

from lightning_attn.attention import AdditiveQueryAttention, DotQueryAttention
from lightning_attn.attribution import IntegratedGradients
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.encoders import CNN, BiLSTM, TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.metrics.functional import adversarial_jsd, permutation_tvd
from lightning_attn.metrics.suite import MEASURES, Settings, measure
from lightning_attn.mitigations import Compose, InstanceWeighting, RandomPretraining
from lightning_attn.networks import PairedNetwork
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out
from lightning_attn.types import Batch, DataSchema
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
    test_value_path_is_what_the_logits_need_when_attention_is_given,
)
from tests.helpers.toy_pairs import ATTENTIONS, ENCODERS, SCHEMA, network, paired, pairs

COMBINATIONS = list(itertools.product(ENCODERS, ("contextual", "local"), ATTENTIONS))


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def built(request: pytest.FixtureRequest) -> PairedNetwork:
    encoder, values, attention = request.param
    return paired(encoder, attention, values)


@pytest.fixture
def batch() -> Batch:
    return pairs()


def alone(batch: Batch, row: int) -> Batch:
    one = batch.select(torch.tensor([row]))
    length, asked = int(one.valid.sum()), int(one.query_valid.sum())
    return one.replace(
        inputs=one.inputs[:, :length],
        valid=one.valid[:, :length],
        special=one.special[:, :length],
        query=one.query[:, :asked],
        query_valid=one.query_valid[:, :asked],
    )


def test_a_pair_gives_the_same_alone_and_padded(built: PairedNetwork, batch: Batch) -> None:
    together = built(batch)
    for row in range(len(batch)):
        single = built(alone(batch, row))
        length = single.attention.shape[1]
        torch.testing.assert_close(single.logits[0], together.logits[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(single.attention[0], together.attention[row, :length], atol=1e-5, rtol=1e-5)


def test_what_stands_in_the_padding_of_a_query_does_not_matter(built: PairedNetwork, batch: Batch) -> None:
    wider = torch.nn.functional.pad(batch.query, (0, 4))
    valid = torch.nn.functional.pad(batch.query_valid, (0, 4))
    garbage = batch.replace(query=torch.where(valid, wider, 17), query_valid=valid)
    torch.testing.assert_close(built(garbage).logits, built(batch).logits)
    torch.testing.assert_close(built(garbage).attention, built(batch).attention)


def test_permuting_the_pairs_permutes_the_output(built: PairedNetwork, batch: Batch) -> None:
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(built(batch.select(order)).logits, built(batch).logits[order])
    torch.testing.assert_close(built(batch.select(order)).attention, built(batch).attention[order])


def test_another_query_moves_attention_and_output(built: PairedNetwork, batch: Batch) -> None:
    order = torch.tensor([1, 0, 3, 2])
    other = batch.replace(query=batch.query[order], query_valid=batch.query_valid[order])
    before, after = built(batch), built(other)
    assert (before.logits - after.logits).abs().amin(dim=-1).min() > 1e-4
    longer = torch.tensor([0, 1, 3])  # a text of one word has the weight 1 on it in any case
    assert (before.attention - after.attention).abs().amax(dim=-1)[longer].min() > 1e-5
    torch.testing.assert_close(before.values, after.values)


@pytest.mark.parametrize("values", ["contextual", "local"])
def test_permuting_the_words_of_a_bag_permutes_its_attention(values: str, batch: Batch) -> None:
    bag, order = paired("average", values=values), torch.tensor([4, 0, 3, 1, 5, 8, 2, 7, 6])
    first = batch.select(torch.tensor([0]))
    moved = bag(first.replace(inputs=first.inputs[:, order]))
    torch.testing.assert_close(moved.attention, bag(first).attention[:, order])
    torch.testing.assert_close(moved.logits, bag(first).logits)


def test_the_query_vector_of_a_bilstm_is_the_last_state_of_both_directions(batch: Batch) -> None:
    built = paired("bilstm")
    vector = built.read_query(batch).query_vector
    for row in range(len(batch)):
        words = built.query_encoder.embedding(batch.query[row][batch.query_valid[row]])
        _, (last, _) = built.query_encoder.lstm(words[None])
        torch.testing.assert_close(vector[row], last[:, 0].flatten())


def test_the_query_vector_of_a_cnn_is_the_maximum_over_its_words(batch: Batch) -> None:
    built = paired("cnn")
    vector = built.read_query(batch).query_vector
    for row in range(len(batch)):
        words = built.query_encoder.embedding(batch.query[row][batch.query_valid[row]]).T[None]
        responses = torch.cat([one(words).relu() for one in built.query_encoder.convolutions], dim=1)
        torch.testing.assert_close(vector[row], responses[0].max(dim=1).values)


def test_the_query_vector_of_an_average_is_the_mean_of_its_words(batch: Batch) -> None:
    built = paired("average")
    vector = built.read_query(batch).query_vector
    for row in range(len(batch)):
        words = built.query_encoder.embedding(batch.query[row][batch.query_valid[row]])
        torch.testing.assert_close(vector[row], torch.tanh(built.query_encoder.projection(words)).mean(dim=0))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_weights_and_logits_are_those_of_the_formulas(encoder: str, attention: str, batch: Batch) -> None:
    """Written with loops over numbers."""
    built = paired(encoder, attention)
    with torch.no_grad():
        output, vectors = built(batch), built.read_query(batch).query_vector.tolist()
        keys = built.encode(built.embed(batch), batch)[0].tolist()
    for row, z in enumerate(vectors):
        length = int(batch.valid[row].sum())
        scores = []
        for i in range(length):
            k = keys[row][i]
            if attention == "dot":
                scores.append(sum(a * b for a, b in zip(k, z, strict=True)) / math.sqrt(len(k)))
            else:
                layer = built.attention
                left, right = affine(layer.project, k), affine(layer.project_query, z)
                hidden = [math.tanh(a + b) for a, b in zip(left, right, strict=True)]
                scores.append(sum(u * h for u, h in zip(layer.direction.weight[0].tolist(), hidden, strict=True)))
        powers = [math.exp(score) for score in scores]
        weights = [power / sum(powers) for power in powers]
        assert output.attention[row, :length].tolist() == pytest.approx(weights, abs=1e-6)
        pooled = [sum(weights[i] * keys[row][i][d] for i in range(length)) for d in range(len(z))]
        left, right = affine(built.head.project, pooled), affine(built.head.project_query, z)
        logits = affine(built.head.output, [math.tanh(a + b) for a, b in zip(left, right, strict=True)])
        assert output.logits[row].tolist() == pytest.approx(logits, abs=1e-5)


def affine(layer: torch.nn.Linear, x: list[float]) -> list[float]:
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + bias for row, bias in rows]


def test_the_published_sizes() -> None:
    built = PairedNetwork(BiLSTM(50, 32), BiLSTM(50, 32)).build(SCHEMA)
    assert built.attention.project.weight.shape == built.attention.project_query.weight.shape == (32, 64)
    assert built.attention.direction.bias is None
    assert built.head.project.weight.shape == built.head.project_query.weight.shape == (32, 64)
    assert built.head.output.weight.shape == (3, 32)
    assert built.encoder.embedding.weight is not built.query_encoder.embedding.weight
    assert list(DotQueryAttention().parameters()) == []


def test_text_and_query_may_have_encoders_of_different_kinds(batch: Batch) -> None:
    mixed = network(CNN(8, 3), BiLSTM(6, 4), AdditiveQueryAttention(size=5))
    assert mixed(batch).logits.shape == (4, 3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_leaving_out_a_word_leaves_the_query_alone(encoder: str, batch: Batch) -> None:
    built = paired(encoder)
    found = probabilities(built, batch, leave_one_out(batch))
    for row in range(len(batch)):
        single = alone(batch, row)
        for i in range(single.inputs.shape[1] if single.inputs.shape[1] > 1 else 0):
            rest = [j for j in range(single.inputs.shape[1]) if j != i]
            shorter = single.replace(
                inputs=single.inputs[:, rest], valid=single.valid[:, rest], special=single.special[:, rest]
            )
            torch.testing.assert_close(
                found[row, i], built(shorter).logits.softmax(-1)[0].detach(), atol=1e-5, rtol=1e-5
            )


def test_whoever_changes_a_text_many_times_reads_the_query_once(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    built = paired("bilstm")
    output = built(batch)
    calls = []
    summarise = BiLSTM.summarise
    monkeypatch.setattr(BiLSTM, "summarise", lambda self, asked: calls.append(1) or summarise(self, asked))
    for work in (
        lambda: probabilities(built, batch, leave_one_out(batch), max_tokens=8),
        lambda: permutation_tvd(built, output, batch, permutations=5),
        lambda: adversarial_jsd(built, output, batch),
        lambda: embedding_gradient(built, batch),
        lambda: IntegratedGradients(steps=3).attribute(built, batch),
        lambda: measure(built, batch, list(MEASURES), Settings(permutations=3)),
    ):
        calls.clear()
        work()
        assert len(calls) == 1


def test_a_query_that_was_read_gives_what_an_unread_one_gives(built: PairedNetwork, batch: Batch) -> None:
    read = built.read_query(batch)
    assert batch.query_vector is None
    assert built.read_query(read) is read
    output = built(batch)
    torch.testing.assert_close(built(read).logits, output.logits)
    torch.testing.assert_close(built.classify(output.values, output.attention, batch), output.logits)


def test_the_gradient_is_that_of_the_text_with_the_query_as_it_is(batch: Batch) -> None:
    built = paired("average").double()
    found = embedding_gradient(built, batch, attention_fixed=False)
    step = 1e-6
    for row, i, d in ((0, 3, 2), (1, 0, 5)):
        moved = []
        for sign in (1, -1):
            embeddings = found.embeddings.clone()
            embeddings[row, i, d] += sign * step
            moved.append(built(batch, embeddings=embeddings).logits.softmax(-1)[row, found.target[row]].item())
        assert found.gradient[row, i, d].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("values", ["contextual", "local"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_after_random_pretraining_the_scorer_alone_learns(encoder: str, values: str, batch: Batch) -> None:
    built = network(ENCODERS[encoder](values), ENCODERS[encoder]("contextual"), AdditiveQueryAttention()).train()
    built.set_mitigation(Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=1)]))
    for epoch, phase in ((0, "random"), (1, "learn")):
        frozen = built.mitigation.lr_scales(built, epoch)
        assert built.mitigation.phase == phase
        for module in frozen:
            module.eval().requires_grad_(False)
        built.zero_grad()
        torch.nn.functional.cross_entropy(built(batch).logits, batch.target).backward()
        learning = {name.split(".")[0] for name, p in built.named_parameters() if p.grad is not None}
        if phase == "random":
            assert {"encoder", "query_encoder", "head"} <= learning
            assert "attention" not in learning
        else:
            assert "attention" in learning
            assert not {"query_encoder", "head"} & learning
            assert ("encoder" in learning) is (values == "local")


def test_pretraining_refuses_a_scorer_that_could_learn_nothing() -> None:
    mitigation = RandomPretraining(epochs=1)
    stuck = paired("bilstm", "dot")
    with pytest.raises(InputError, match=r"DotQueryAttention has no parameters.*values: local"):
        mitigation.lr_scales(stuck, 0)
    assert mitigation.lr_scales(paired("bilstm", "dot", "local"), 0) == {}
    assert RandomPretraining(epochs=1, then="finetune").lr_scales(stuck, 0) == {}
    stuck.set_mitigation(Compose([mitigation, InstanceWeighting()]))  # an estimator that learns is no scorer
    with pytest.raises(InputError, match="nothing to learn"):
        stuck.mitigation.lr_scales(stuck, 0)


def test_data_without_queries_are_refused(batch: Batch) -> None:
    with pytest.raises(InputError, match="the data have no queries: name their column"):
        PairedNetwork().build(DataSchema(num_classes=2, vocabulary_size=30))
    with pytest.raises(InputError, match="the batch has no queries"):
        paired("average")(batch.replace(query=None, query_valid=None))


def test_dot_attention_needs_equal_sizes() -> None:
    with pytest.raises(InputError, match="gives 12 numbers and the query's 8"):
        network(BiLSTM(8, 6), BiLSTM(8, 4), DotQueryAttention())


def test_a_query_encoder_with_values_is_refused() -> None:
    with pytest.raises(ValueError, match="makes no values"):
        PairedNetwork(BiLSTM(), BiLSTM(values="local"))


def test_a_query_attention_in_a_network_without_queries_says_so(batch: Batch) -> None:
    layer = AdditiveQueryAttention()
    layer.make_layers(4, 4)
    with pytest.raises(InputError, match="needs a network that reads a query"):
        layer(torch.zeros(4, 9, 4), batch)


def test_word_vectors_go_to_text_and_query() -> None:
    built = network(TokenMLP(4, 3), TokenMLP(4, 3), AdditiveQueryAttention())
    vectors = torch.arange(120.0).reshape(30, 4)
    built.load_word_vectors(vectors)
    assert torch.equal(built.encoder.embedding.weight, vectors)
    assert torch.equal(built.query_encoder.embedding.weight, vectors)
