"""Hard selection: what is drawn, what is selected, and what mitigations make of it."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_attn.attention import (
    AdditiveAttention,
    DotAttention,
    GumbelTopK,
    L2XSampler,
    TopKSelection,
    TopShareSelection,
)
from lightning_attn.attention.selection import top_k
from lightning_attn.encoders import BiLSTM
from lightning_attn.mitigations import (
    Compose,
    InstanceWeighting,
    NoMitigation,
    RandomMixing,
    RandomPretraining,
    UniformShare,
    UniformSubset,
)
from lightning_attn.networks import BagNetwork, PooledNetwork
from lightning_attn.ops.softmax import masked_softmax
from lightning_attn.types import DataSchema
from tests.helpers.toy_bags import toy_bags
from tests.helpers.toys import VOCABULARY, alone, toy_batch

SCHEMA = DataSchema(num_classes=2, vocabulary_size=VOCABULARY)


def network(attention=None, mitigation=None) -> PooledNetwork:
    torch.manual_seed(0)
    built = PooledNetwork(BiLSTM(6, 5, values="local"), attention or TopKSelection(3)).build(SCHEMA)
    built.set_mitigation(mitigation or NoMitigation())
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(3)
    return built


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_top_k_takes_the_best_allowed_positions(seed: int, rows: int, length: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (rows, length), generator=generator).float()  # with ties
    allowed = torch.rand(rows, length, generator=generator) < 0.7
    counts = (torch.rand(rows, 1, generator=generator) * (allowed.sum(dim=1, keepdim=True) + 1)).long()
    found = top_k(scores, allowed, counts)
    for row in range(rows):
        ranked = sorted((place for place in range(length) if allowed[row, place]), key=lambda p: (-scores[row, p], p))
        expected = set(ranked[: int(counts[row])])
        assert {place for place in range(length) if found[row, place]} == expected


def test_evaluation_selects_k_and_padding_changes_nothing() -> None:
    built, batch = network().eval(), toy_batch((7, 1, 12, 4), special=True)
    output = built(batch)
    sizes = (output.attention > 0).sum(dim=1)
    assert sizes.tolist() == [3, 1, 3, 2]  # one token is special and alone; of four, two are
    torch.testing.assert_close(output.attention[output.attention > 0], (1 / sizes).repeat_interleave(sizes))
    best = output.scores.masked_fill(~batch.inner, -torch.inf).topk(3).indices
    assert set(best[0].tolist()) == set(output.attention[0].nonzero().flatten().tolist())
    for row in range(4):
        single = built(alone(batch, row)).attention
        assert torch.equal(single[0], output.attention[row, : single.shape[1]])


def test_a_share_of_each_text() -> None:
    batch = toy_batch((7, 1, 12, 4))
    attention = network(TopShareSelection(0.25)).eval()(batch).attention
    assert (attention > 0).sum(dim=1).tolist() == [2, 1, 3, 1]


@pytest.mark.parametrize("k", [1, 2])
def test_gumbel_draws_follow_plackett_and_luce(k: int) -> None:
    torch.manual_seed(0)
    scores, count = torch.tensor([0.5, -1.0, 1.5, 0.0, 9.0]), 6000
    allowed = torch.tensor([True, True, True, True, False])
    drawn = GumbelTopK().draw(scores.expand(count, -1), allowed.expand(count, -1), torch.full((count, 1), k))
    assert set(drawn.detach().unique().round(decimals=5).tolist()) == {0.0, 1.0}
    assert (drawn.sum(dim=1).round() == k).all()
    p = scores[:4].softmax(dim=0)
    # Included among two: first, or second after another one.
    second = torch.stack([sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)])
    expected = (p if k == 1 else p + second).double()
    assert expected.sum() == pytest.approx(k, abs=1e-6)
    for place in range(4):
        hits = int(drawn[:, place].round().sum())
        assert stats.binomtest(hits, count, float(expected[place])).pvalue > 1e-4
    assert (drawn[:, 4] == 0).all()


def test_l2x_draws_with_replacement() -> None:
    torch.manual_seed(0)
    scores, count = torch.tensor([0.5, -1.0, 1.5]), 6000
    allowed = torch.ones(count, 3, dtype=torch.bool)
    drawn = L2XSampler(1e-3).draw(scores.expand(count, -1), allowed, torch.full((count, 1), 2)) > 0.5
    expected = 1 - (1 - scores.softmax(dim=0).double()) ** 2
    for place in range(3):
        assert stats.binomtest(int(drawn[:, place].sum()), count, float(expected[place])).pvalue > 1e-4
    warm = L2XSampler(0.5).draw(scores[None], allowed[:1], torch.tensor([[2]]))
    assert ((warm > 0) & (warm < 1)).all(), "relaxed forward"


def test_the_gradient_is_that_of_the_relaxed_draw() -> None:
    scores = torch.randn(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    allowed = torch.arange(6) < torch.tensor([[6], [4]])
    counts, direction = torch.tensor([[3], [2]]), torch.randn(2, 6, dtype=torch.float64)

    def relaxed(values: torch.Tensor) -> torch.Tensor:
        """Xie and Ermon's relaxed k-hot, written out, under the same noise."""
        torch.manual_seed(7)
        left = values - torch.empty_like(values).exponential_().log()
        total = torch.zeros_like(values)
        for step in range(3):
            part = masked_softmax(left / 0.5, allowed)
            total = total + part * (step < counts)
            left = left + (1 - part).log()
        return total

    torch.manual_seed(7)
    (found,) = torch.autograd.grad((GumbelTopK(0.5).draw(scores, allowed, counts) * direction).sum(), scores)
    for place in [(0, 1), (0, 5), (1, 3)]:
        step = torch.zeros_like(scores)
        step[place] = 1e-6
        with torch.no_grad():
            slope = ((relaxed(scores + step) - relaxed(scores - step)) * direction).sum() / 2e-6
        assert found[place].item() == pytest.approx(slope.item(), abs=1e-5)
    assert (found[1, 4:] == 0).all()


@pytest.mark.parametrize("sampler", [GumbelTopK(), L2XSampler()], ids=lambda sampler: type(sampler).__name__)
def test_training_draws_distributions_anew_and_the_scorer_learns(sampler) -> None:
    built, batch = network(TopKSelection(3, sampler=sampler)).train(), toy_batch((7, 9, 12, 4))
    first, second = built(batch), built(batch)
    assert not torch.equal(first.attention, second.attention)
    torch.testing.assert_close(first.attention.sum(dim=1), torch.ones(4))
    assert (first.attention[~batch.inner] == 0).all()
    first.logits[:, 0].sum().backward()
    assert built.attention.scorer.project.weight.grad.abs().sum() > 0


def test_temperature_and_special_tokens_are_the_scorers() -> None:
    selection = TopKSelection(2, DotAttention(temperature=0.5, attend_special=True))
    assert (selection.temperature, selection.attend_special) == (0.5, True)


@pytest.mark.parametrize("attention", [TopKSelection(3), TopShareSelection(0.3)], ids=lambda a: type(a).__name__)
def test_random_pretraining_draws_selections(attention) -> None:
    mitigation = RandomPretraining(epochs=1)
    built, batch = network(attention, mitigation).train(), toy_batch((10, 12))
    mitigation.lr_scales(built, 0)
    assert isinstance(mitigation.distribution, (UniformSubset, UniformShare))
    seen = built(batch).attention
    assert torch.equal((seen > 0).sum(dim=1), attention.counts(batch.inner).squeeze(1))
    frozen = mitigation.lr_scales(built, 1)
    built(batch).logits.sum().backward()
    assert built.head in frozen
    assert built.attention.scorer.direction.weight.grad is not None


def test_a_distribution_of_ones_own_stays() -> None:
    mitigation = RandomPretraining(epochs=1, distribution=UniformSubset(5))
    mitigation.lr_scales(network(mitigation=mitigation), 0)
    assert mitigation.distribution.k == 5


def test_mixing_and_weighting_work_on_selections() -> None:
    weighting = InstanceWeighting(warmup_steps=0)
    built, batch = network(mitigation=Compose([RandomMixing(), weighting])).train(), toy_batch((10, 12, 6, 8))
    output = built(batch)
    weights = built.mitigation.weigh(output.learned, built.attendable(batch))
    assert weights.isfinite().all()
    (output.logits.sum() + built.mitigation.auxiliary_loss(output, batch, built)).backward()
    assert all(parameter.grad is not None for parameter in weighting.classifiers.parameters())


def test_bags_packed_or_padded_are_selected_from_alike() -> None:
    torch.manual_seed(0)
    bags = toy_bags((7, 1, 12, 4))
    built = BagNetwork(attention=TopKSelection(3, AdditiveAttention())).build(
        DataSchema(num_classes=3, feature_shape=(6,))
    )
    padded, packed = built.eval()(bags), built(bags.pack())
    assert torch.equal(padded.attention, packed.attention)
    torch.testing.assert_close(padded.logits, packed.logits)
    torch.testing.assert_close(built.train()(bags.pack()).attention.sum(dim=1), torch.ones(4))


def test_a_k_that_leaves_nothing_out_is_said_once() -> None:
    built = network(TopKSelection(20)).train()
    with pytest.warns(UserWarning, match="selects 20 positions, but the longest text of a training batch has 12"):
        built(toy_batch((7, 12)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built(toy_batch((7, 12)))


@pytest.mark.parametrize(
    "wrong", [lambda: TopKSelection(0), lambda: TopShareSelection(0.0), lambda: GumbelTopK(temperature=0.0)]
)
def test_wrong_arguments_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="needs a"):
        wrong()
