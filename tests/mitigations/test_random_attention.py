"""Random attention: a distribution over inner positions that depends on nothing but length and seed."""

import pytest
import torch
from scipy import stats

from lightning_attn.mitigations import BernoulliSubset, Dirichlet, Shuffled, SoftmaxNormal, UniformShare, UniformSubset
from lightning_attn.mitigations.random_attention import RandomAttention
from lightning_attn.ops.randomness import seeded
from lightning_attn.ops.softmax import masked_softmax
from tests.helpers.toys import toy_batch

DISTRIBUTIONS = [
    SoftmaxNormal(),
    Dirichlet(0.01),
    Dirichlet(1.0),
    UniformSubset(3),
    UniformShare(0.4),
    BernoulliSubset(0.3),
    Shuffled(),
]


@pytest.fixture
def batch():
    return toy_batch(lengths=[9, 4, 1, 6, 9], seed=1)


def learned(batch) -> torch.Tensor:
    return masked_softmax(torch.randn(batch.valid.shape, generator=torch.Generator().manual_seed(5)) * 4, batch.inner)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_draws_are_distributions_over_inner_positions(distribution: RandomAttention, batch) -> None:
    batch = batch.replace(special=batch.valid & (torch.arange(9) == 1))
    for seed in range(50):
        with seeded(seed, torch.device("cpu")):
            drawn = distribution.sample(learned(batch), batch)
        torch.testing.assert_close(drawn.sum(dim=-1), torch.ones(5))
        assert (drawn >= 0).all()
        assert (drawn[~batch.inner] == 0).all()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_draws_do_not_depend_on_the_examples_own_weights(distribution: RandomAttention, batch) -> None:
    weights = learned(batch)
    other = weights.clone()
    other[0] = batch.inner[0] / batch.inner[0].sum()
    with seeded(3, torch.device("cpu")):
        first = distribution.sample(weights, batch)
    with seeded(3, torch.device("cpu")):
        second = distribution.sample(other, batch)
    assert torch.equal(first[0], second[0])


def test_seeding_leaves_the_global_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(9, torch.device("cpu")):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_dirichlet_has_beta_marginals(alpha: float) -> None:
    batch = toy_batch(lengths=[4] * 4000, seed=1)
    with seeded(0, torch.device("cpu")):
        drawn = Dirichlet(alpha).sample(torch.zeros(batch.valid.shape), batch)
    inner = int(batch.inner[0].sum())
    first = drawn[batch.inner].view(4000, inner)[:, 0].double().clamp(1e-12, 1 - 1e-12)
    assert stats.kstest(first.numpy(), stats.beta(alpha, alpha * (inner - 1)).cdf).pvalue > 1e-3


def test_subsets_are_uniform_over_positions() -> None:
    batch = toy_batch(lengths=[6] * 6000, seed=1)
    with seeded(0, torch.device("cpu")):
        drawn = UniformSubset(2).sample(torch.zeros(batch.valid.shape), batch)
    inner = int(batch.inner[0].sum())
    counts = (drawn[batch.inner].view(6000, inner) > 0).sum(dim=0)
    assert counts.sum() == 12000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert set(drawn.unique().tolist()) == {0.0, 0.5}


def test_softmax_normal_gives_flat_and_peaked_weights() -> None:
    batch = toy_batch(lengths=[20] * 500, seed=1)
    with seeded(0, torch.device("cpu")):
        largest = SoftmaxNormal().sample(torch.zeros(batch.valid.shape), batch).max(dim=-1).values
    assert largest.min() < 0.15
    assert largest.max() > 0.9


def test_shuffled_hands_on_another_examples_profile() -> None:
    batch = toy_batch(lengths=[5, 5, 5], seed=1)
    weights = learned(batch)
    with seeded(0, torch.device("cpu")):
        drawn = Shuffled().sample(weights, batch)
    for row in range(3):
        others = [other for other in range(3) if other != row]
        assert any(torch.allclose(drawn[row], weights[other]) for other in others)


def test_an_example_alone_gets_uniform_weights() -> None:
    batch = toy_batch(lengths=[5], seed=1)
    drawn = Shuffled().sample(learned(batch), batch)
    torch.testing.assert_close(drawn, batch.inner / batch.inner.sum(dim=-1, keepdim=True))


@pytest.mark.parametrize("wrong", [lambda: SoftmaxNormal(2, 1), lambda: Dirichlet(0), lambda: UniformSubset(0)])
def test_wrong_arguments_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="needs"):
        wrong()


def test_a_share_is_rounded_up_and_every_position_comes_as_often() -> None:
    batch = toy_batch(lengths=[5, 10, 1] * 500, seed=1)
    with seeded(0, torch.device("cpu")):
        chosen = UniformShare(0.2).sample(torch.zeros(batch.valid.shape), batch) > 0
    assert (chosen.sum(dim=-1).view(500, 3) == torch.tensor([1, 2, 1])).all()
    often = chosen[1::3].float().mean(dim=0)
    torch.testing.assert_close(often, torch.full((10,), 0.2), atol=0.06, rtol=0)


def test_bernoulli_subsets_have_every_size_but_none() -> None:
    batch = toy_batch(lengths=[4] * 4000, seed=1)
    with seeded(0, torch.device("cpu")):
        size = (BernoulliSubset(0.5).sample(torch.zeros(batch.valid.shape), batch) > 0).sum(dim=-1)
    expected = [0, 5, 6, 4, 1]  # of 16 subsets; the empty one becomes one of size 1
    assert stats.chisquare(torch.bincount(size, minlength=5)[1:], [250 * part for part in expected[1:]]).pvalue > 1e-3
