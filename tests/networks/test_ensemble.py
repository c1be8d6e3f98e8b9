"""`AttentionEnsemble`: the contract of every network, and what it makes of its members."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor

from lightning_attn.attention import AdditiveAttention, DotAttention, DotQueryAttention, GatedAttention
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.encoders import CNN, MLP, BiLSTM, TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.metrics.suite import MEASURES, Settings, measure
from lightning_attn.mitigations import NoMitigation, RandomPretraining
from lightning_attn.networks import (
    AttentionEnsemble,
    AttentionNetwork,
    BagNetwork,
    Combination,
    GeometricMean,
    LinearClassifier,
    MeanLogit,
    MeanProbability,
    MeanRank,
    MLPClassifier,
    PairedNetwork,
    PooledNetwork,
)
from lightning_attn.networks.combinations import COMBINATIONS, NEVER, get_combination
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
    test_mixed_precision_gives_a_distribution_too,
    test_value_path_is_what_the_logits_need_when_attention_is_given,
)
from tests.helpers.runs import tiny_data, trainer
from tests.helpers.toy_bags import small_lenet, toy_bag_network, toy_bags
from tests.helpers.toy_pairs import pairs
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=3, vocabulary_size=30)
NAMES = sorted(COMBINATIONS)


def member(kind: int, schema: DataSchema = SCHEMA, sharpness: float = 3.0) -> AttentionNetwork:
    """Members of four architectures, sharp enough to differ."""
    torch.manual_seed(kind)
    made = [
        lambda: PooledNetwork(BiLSTM(8, 5, dropout=0.3), AdditiveAttention()),
        lambda: PooledNetwork(CNN(6, 3, values="local"), DotAttention(), MLPClassifier(5)),
        lambda: PooledNetwork(TokenMLP(8, 7), GatedAttention(4, attend_special=True), LinearClassifier()),
        lambda: PooledNetwork(BiLSTM(8, 5, values="local"), AdditiveAttention()),
    ][kind % 4]().build(schema)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(sharpness)
    return made.eval()


def ensemble(
    name: str = "mean", members: int = 4, schema: DataSchema = SCHEMA, sharpness: float = 3.0
) -> AttentionEnsemble:
    return AttentionEnsemble([member(kind, schema, sharpness) for kind in range(members)], get_combination(name))


@pytest.fixture(params=NAMES)
def built(request: pytest.FixtureRequest) -> AttentionEnsemble:
    return ensemble(request.param)


@pytest.fixture
def batch() -> Batch:
    return toy_batch(lengths=[9, 4, 1, 6], seed=1)


def by_hand(name: str, p: np.ndarray) -> np.ndarray:
    """One distribution from those of K members, shape ``(K, O)``, by SciPy."""
    p = p.astype(float)
    if name == "mean":
        return p.mean(axis=0)
    if name == "rank":
        pooled = stats.rankdata(p, axis=1).mean(axis=0)
    elif name == "geometric":
        pooled = stats.gmean(p, axis=0)
    else:
        pooled = special.expit(special.logit(p).mean(axis=0))
    return pooled / pooled.sum()


@pytest.mark.parametrize("name", NAMES)
def test_attention_and_output_are_those_of_the_formula(name: str, batch: Batch) -> None:
    network = ensemble(name, sharpness=1.5)
    output, parts = network(batch), [own(batch) for own in network.members]
    for row in range(len(batch)):
        length = int(batch.valid[row].sum())
        weights = np.stack([part.attention[row, :length].detach().numpy() for part in parts])
        expected = by_hand(name, weights) if length > 1 else np.ones(1)
        np.testing.assert_allclose(output.attention[row, :length].detach(), expected, atol=1e-5)
        probabilities = np.stack([part.logits[row].softmax(-1).detach().numpy() for part in parts])
        expected = by_hand("mean" if name == "rank" else name, probabilities)
        np.testing.assert_allclose(output.logits[row].softmax(-1).detach(), expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_their_own_are_combined_one_by_one(name: str, batch: Batch) -> None:
    network = ensemble(name, schema=DataSchema(num_classes=3, multi_label=True, vocabulary_size=30))
    found = network(batch).logits.sigmoid().detach().numpy()
    parts = np.stack([own(batch).logits.sigmoid().detach().numpy() for own in network.members])
    both = np.stack([parts, 1 - parts], axis=-1)
    for row, label in itertools.product(range(len(batch)), range(3)):
        expected = by_hand("mean" if name == "rank" else name, both[:, row, label])[0]
        assert found[row, label] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_given_its_own_attention_each_member_does_what_it_does_alone(name: str, batch: Batch) -> None:
    network = ensemble(name)
    output = network(batch)
    *_, shares = network._split(output.values)
    for number, own in enumerate(network.members):
        expected = own(batch).attention
        torch.testing.assert_close(output.attention * shares[..., number], expected, atol=1e-6, rtol=1e-5)


def test_under_the_mean_the_members_weights_average_to_what_is_given(batch: Batch) -> None:
    network = ensemble("mean")
    given_weights = torch.rand(batch.valid.shape).masked_fill(~batch.valid, 0)
    *_, shares = network._split(network(batch).values)
    average = (given_weights[..., None] * shares).mean(dim=-1)
    torch.testing.assert_close(average, given_weights)


@pytest.mark.parametrize("name", ["mean", "geometric", "logit"])
def test_members_that_are_one_network_make_that_network(name: str, batch: Batch) -> None:
    one = member(0)
    output, alone = AttentionEnsemble([one, one, one], get_combination(name))(batch), one(batch)
    torch.testing.assert_close(output.attention, alone.attention, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(output.logits.softmax(-1), alone.logits.softmax(-1), atol=1e-6, rtol=1e-4)


def test_the_order_of_the_members_does_not_matter(built: AttentionEnsemble, batch: Batch) -> None:
    other = AttentionEnsemble(list(built.members)[::-1], built.combination)
    torch.testing.assert_close(other(batch).logits, built(batch).logits)
    torch.testing.assert_close(other(batch).attention, built(batch).attention)


class Saturated(PooledNetwork):
    """Attention at one position, so sharp that all other weights are 0 in single precision."""

    def __init__(self, position: int) -> None:
        super().__init__(TokenMLP(4, 4))
        self.position = position

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        keys, values = super().encode(embeddings, batch)
        place = torch.arange(keys.shape[1], device=keys.device)
        return torch.where(place == self.position, 1.0, -1.0)[None, :, None].expand_as(keys), values

    def make_layers(self, schema: DataSchema) -> None:
        super().make_layers(schema)
        with torch.no_grad():
            self.attention.project.weight.fill_(1.0)
            self.attention.project.bias.zero_()
            self.attention.direction.weight.fill_(200.0)


@pytest.mark.parametrize("name", NAMES)
def test_saturated_members_keep_the_contract(name: str, batch: Batch) -> None:
    torch.manual_seed(0)
    network = AttentionEnsemble([Saturated(0).build(SCHEMA), Saturated(1).build(SCHEMA)], get_combination(name))
    batch = batch.select(torch.tensor([0, 1, 3]))
    output = network(batch)
    assert sorted(output.attention[0].tolist())[:-2] == pytest.approx([0.0] * 7, abs=0.3 if name == "rank" else 1e-3)
    torch.testing.assert_close(output.attention[:, 0], output.attention[:, 1])
    again = network(batch, attention=output.attention)
    torch.testing.assert_close(again.logits, output.logits)
    members = torch.stack([own(batch).logits.softmax(-1) for own in network.members]).mean(dim=0)
    if name in ("mean", "rank"):
        torch.testing.assert_close(output.logits.softmax(-1), members)
    for weights in (
        batch.valid / batch.valid.sum(dim=-1, keepdim=True),
        output.attention.roll(2, dims=-1) * batch.valid,
    ):
        assert network(batch, attention=weights).logits.isfinite().all()
    gradient = embedding_gradient(network, batch, attention_fixed=False).gradient
    assert gradient.isfinite().all()


def test_scores_keep_the_order_that_saturated_weights_lose(batch: Batch) -> None:
    torch.manual_seed(0)
    sharp = PooledNetwork(TokenMLP(8, 7), DotAttention()).build(SCHEMA)
    with torch.no_grad():
        sharp.attention.query.weight.mul_(40000)
    network = AttentionEnsemble([sharp, sharp])
    output = network(batch)
    assert (output.attention[0] == 0).sum() > 1
    torch.testing.assert_close(output.scores[0].diff(), sharp(batch).scores[0].diff(), rtol=1e-4, atol=1e-2)


class Largest(PooledNetwork):
    """A head that is not a function of ``sum_i a_i v_i``."""

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        return self.head((attention.sqrt()[..., None] * values).amax(dim=1))


def test_members_may_classify_as_they_like(batch: Batch) -> None:
    torch.manual_seed(0)
    made = [Largest(TokenMLP(8, 7)).build(SCHEMA), member(1)]
    network = AttentionEnsemble(made)
    expected = torch.stack([own.eval()(batch).logits.softmax(-1) for own in made]).mean(dim=0)
    torch.testing.assert_close(network(batch).logits.exp(), expected)


def test_gradients_with_the_attention_fixed_go_through_the_values_alone(batch: Batch) -> None:
    network = ensemble("mean")
    found = embedding_gradient(network, batch)
    embeddings = network.embed(batch).detach().requires_grad_()
    parts = embeddings.split([size.embedding[0] for size in network._sizes], dim=-1)
    total = torch.zeros(())
    for own, part in zip(network.members, parts, strict=True):
        output = own(batch, embeddings=part)
        logits = own.classify(output.values, output.attention.detach(), batch)
        total = total + logits.softmax(-1).gather(-1, found.target[:, None]).sum() / len(network.members)
    (expected,) = torch.autograd.grad(total, embeddings)
    torch.testing.assert_close(found.gradient, expected, atol=1e-6, rtol=1e-4)
    through_all = embedding_gradient(network, batch, attention_fixed=False).gradient
    assert not torch.allclose(found.gradient, through_all, atol=1e-4)


def test_gradients_through_the_scorers_are_those_of_the_output(batch: Batch) -> None:
    network = ensemble("mean").double()
    found = embedding_gradient(network, batch, attention_fixed=False)
    step = torch.randn(found.embeddings.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-3

    def probability(sign: int) -> Tensor:
        logits = network(batch, embeddings=found.embeddings + sign * step).logits
        return logits.softmax(-1).gather(-1, found.target[:, None]).squeeze(-1)

    slope = ((found.gradient * step) * batch.valid[..., None]).sum(dim=(1, 2))
    torch.testing.assert_close((probability(1) - probability(-1)) / 2, slope, atol=2e-7, rtol=2e-2)


def test_many_attentions_at_once_are_one_after_the_other(built: AttentionEnsemble, batch: Batch) -> None:
    values = built(batch).values
    many = torch.rand(len(batch), 5, 9, generator=torch.Generator().manual_seed(0)) * batch.valid[:, None]
    expected = torch.stack([built.classify(values, many[:, number], batch) for number in range(5)], dim=1)
    torch.testing.assert_close(built.classify_many(values, many, batch), expected)


def test_special_tokens_are_left_to_the_members(batch: Batch) -> None:
    batch = batch.replace(special=batch.valid & (torch.arange(9) == 0))
    nobody = AttentionEnsemble([member(0), member(1)], GeometricMean())(batch).attention
    assert (nobody[[0, 1, 3], 0] == 0).all()
    assert nobody[2, 0] == 1
    somebody = ensemble("mean")(batch).attention  # the third member attends them
    torch.testing.assert_close(
        somebody[:, 0], torch.stack([own(batch).attention[:, 0] for own in ensemble().members]).mean(0)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31), st.floats(0.1, 30), st.sampled_from(NAMES))
def test_pooling_gives_distributions_like_scipys(
    members: int, outcomes: int, seed: int, sharpness: float, name: str
) -> None:
    logs = torch.randn(outcomes, members, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logs = (logs * sharpness).log_softmax(dim=0)
    found = get_combination(name).attention(logs[None])[0].softmax(-1)
    floor = 0.0 if name in ("mean", "rank") else float(torch.finfo(torch.float32).eps)
    p = logs.exp().numpy().T.clip(floor, 1 - floor)
    if outcomes == 1:
        assert found.tolist() == [1.0]
    else:
        np.testing.assert_allclose(found, by_hand(name, p), atol=1e-6)


def test_ranks_do_not_count_padding() -> None:
    logs = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]]).log().T[None]
    padded = torch.cat([logs, torch.full((1, 5, 2), NEVER)], dim=1)
    expected = torch.tensor([2.0, 2.5, 1.5]) / 6
    torch.testing.assert_close(MeanRank().attention(logs)[0].softmax(-1), expected)
    torch.testing.assert_close(MeanRank().attention(padded)[0, :3].softmax(-1), expected)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_of_texts(name: str) -> None:
    batch = pairs()
    schema = DataSchema(num_classes=3, vocabulary_size=30, query_vocabulary_size=30)
    torch.manual_seed(0)
    made: list[AttentionNetwork] = [
        PairedNetwork(BiLSTM(8, 6), TokenMLP(8, 5)).build(schema),
        PairedNetwork(CNN(8, 3), CNN(8, 3), DotQueryAttention()).build(schema),
        PooledNetwork(TokenMLP(8, 7)).build(schema),  # reads the text alone
    ]
    network = AttentionEnsemble(made, get_combination(name))
    assert network.reads_query
    output = network(batch)
    torch.testing.assert_close(network.classify(output.values, output.attention, batch), output.logits)
    read = network.read_query(batch)
    assert read.query_vector is not None
    torch.testing.assert_close(network(read.replace(query=None)).logits, output.logits)
    members = torch.stack([own.eval()(batch).logits.softmax(-1) for own in made])
    if name == "mean":
        torch.testing.assert_close(output.logits.exp(), members.mean(dim=0))


def test_texts_alone_need_no_query() -> None:
    assert not ensemble().reads_query


def test_every_measure_takes_it_as_any_network(built: AttentionEnsemble) -> None:
    batch = toy_batch([6, 3], evidence=True)
    values, output = measure(built, batch, MEASURES, Settings())
    assert set(values) == set(MEASURES)
    assert values["faithfulness/comprehensiveness"].isfinite().all()
    torch.testing.assert_close(output.logits, built(batch).logits)


@pytest.mark.parametrize("name", NAMES)
def test_shortcuts_of_the_members_give_what_reading_every_variant_gives(name: str, batch: Batch) -> None:
    for network, examples in ((ensemble(name), batch), (paired_ensemble(name), pairs())):
        keep = torch.cat([leave_one_out(examples), examples.valid[:, None] & (torch.arange(9) % 2 == 0)], dim=1)
        fast = probabilities(network, examples, keep)
        torch.testing.assert_close(fast, probabilities(network, examples, keep, fast_path=False), atol=1e-5, rtol=1e-5)


def test_a_hook_on_a_member_is_not_passed_over(batch: Batch) -> None:
    network = ensemble()
    network.members[0].head.register_forward_hook(lambda _, __, logits: logits + torch.tensor([5.0, 0.0, 0.0]))
    keep = leave_one_out(batch)
    found = probabilities(network, batch, keep)
    torch.testing.assert_close(found, probabilities(network, batch, keep, fast_path=False))


def paired_ensemble(name: str) -> AttentionEnsemble:
    schema = DataSchema(num_classes=3, vocabulary_size=30, query_vocabulary_size=30)
    torch.manual_seed(0)
    made = [
        PairedNetwork(BiLSTM(8, 6), TokenMLP(8, 5)).build(schema),
        PairedNetwork(CNN(8, 3), CNN(8, 3)).build(schema),
    ]
    return AttentionEnsemble(made, get_combination(name))


BAGS = {
    "gated": ("gated", "additive", "identity"),
    "several heads": ("multihead", "class", "multihead-additive"),
    "controls": ("mean", "max", "sum", "gated"),
}


def bag_ensemble(kinds: str, name: str = "mean") -> AttentionEnsemble:
    return AttentionEnsemble([toy_bag_network(kind) for kind in BAGS[kinds]], get_combination(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kinds", BAGS)
def test_bags(kinds: str, name: str) -> None:
    network, batch = bag_ensemble(kinds, name), toy_bags()
    output = network(batch)
    torch.testing.assert_close(output.attention.sum(dim=-1), torch.ones(len(batch)))
    torch.testing.assert_close(network(batch, attention=output.attention).logits, output.logits)
    torch.testing.assert_close(network(batch, embeddings=network.embed(batch)).logits, output.logits)
    packed = network(batch.pack())
    torch.testing.assert_close(packed.logits, output.logits)
    torch.testing.assert_close(packed.attention, output.attention)
    again = network.classify(packed.values, packed.attention, batch.pack())
    torch.testing.assert_close(again, packed.logits)
    torch.testing.assert_close(
        network(batch.pack(), embeddings=network.embed(batch.pack())).logits, output.logits, atol=1e-5, rtol=1e-5
    )
    if name == "mean":
        members = [own(batch) for own in network.members]
        expected = torch.stack([member.logits.softmax(-1) for member in members]).mean(dim=0)
        torch.testing.assert_close(output.logits.exp(), expected)
        torch.testing.assert_close(output.attention, torch.stack([one.attention for one in members]).mean(dim=0))


@pytest.mark.parametrize("kinds", BAGS)
def test_permuting_a_bag_permutes_its_attention(kinds: str) -> None:
    network, batch = bag_ensemble(kinds), toy_bags([8, 8])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    moved = network(batch.replace(inputs=batch.inputs[:, order]))
    torch.testing.assert_close(moved.attention, network(batch).attention[:, order])
    torch.testing.assert_close(moved.logits, network(batch).logits)


def test_bags_of_images() -> None:
    schema = DataSchema(num_classes=3, feature_shape=(1, 8, 8))
    torch.manual_seed(0)
    made: list[AttentionNetwork] = [BagNetwork(small_lenet()).build(schema), BagNetwork(MLP((5,))).build(schema)]
    network, batch = AttentionEnsemble(made), toy_bags(feature_shape=(1, 8, 8))
    for given_batch in (batch, batch.pack()):
        output = network(given_batch)
        again = network(given_batch, embeddings=network.embed(given_batch)).logits
        torch.testing.assert_close(again, output.logits)
        expected = torch.stack([own.eval()(batch).logits.softmax(-1) for own in made]).mean(dim=0)
        torch.testing.assert_close(output.logits.exp(), expected)


def test_layers_are_made_with_the_data() -> None:
    torch.manual_seed(0)
    network = AttentionEnsemble([PooledNetwork(TokenMLP(8, 7)), PooledNetwork(BiLSTM(8, 5, dropout=0.9))])
    assert not network.built
    network.build(SCHEMA)
    batch = toy_batch()
    assert torch.equal(network(batch).logits, network(batch).logits)  # without dropout
    assert network(batch).logits.shape == (4, 3)


def test_making_it_draws_no_random_numbers() -> None:
    made = [member(0), member(1)]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    AttentionEnsemble(made)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"vocabulary_size": 31}, "member 1 has vocabulary_size 31"), ({"class_names": ("a", "b", "c")}, "class_names")],
)
def test_members_of_other_data_are_refused(change: dict[str, object], named: str) -> None:
    other = DataSchema(**{**SCHEMA.as_dict(), **change})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=named):
        AttentionEnsemble([member(0), member(1, other)])


def test_it_needs_members() -> None:
    with pytest.raises(InputError, match="at least one member"):
        AttentionEnsemble([])


def test_an_unknown_combination_is_named() -> None:
    with pytest.raises(InputError, match="no combination 'median'; the combinations are geometric, logit, mean, rank"):
        get_combination("median")


def test_it_is_not_trained(tmp_path: Path) -> None:
    data = tiny_data()
    torch.manual_seed(0)
    made = AttentionEnsemble([PooledNetwork(TokenMLP(4, 4)) for _ in range(2)])
    with pytest.raises(InputError, match="`lightning ensemble` trains its members"):
        trainer(tmp_path).fit(AttentionClassifier(made), data)


def test_it_takes_no_mitigation() -> None:
    network = ensemble()
    network.set_mitigation(NoMitigation())
    with pytest.raises(InputError, match="takes no mitigation"):
        network.set_mitigation(RandomPretraining(1))


def test_combinations_are_found_by_name() -> None:
    kinds: list[type[Combination]] = [MeanProbability, GeometricMean, MeanLogit, MeanRank]
    assert [type(get_combination(name)) for name in ("mean", "geometric", "logit", "rank")] == kinds
