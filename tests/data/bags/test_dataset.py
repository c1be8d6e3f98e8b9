import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.data.bags import BagBatches
from lightning_attn.errors import InputError

cases = {
    "lengths": st.lists(st.integers(1, 50), max_size=50).map(lambda found: np.array(found, dtype=np.int64)),
    "world": st.integers(1, 5),
    "size": st.integers(1, 9),
    "budget": st.one_of(st.none(), st.integers(50, 200)),
    "seed": st.integers(0, 3),
}


def ranks(lengths, world, size, budget, seed, *, shuffle: bool, epoch: int = 0):
    samplers = [
        BagBatches(lengths, size, shuffle=shuffle, seed=seed, rank=rank, world_size=world, max_instances=budget)
        for rank in range(world)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return samplers, [list(sampler) for sampler in samplers]


@given(**cases)
def test_evaluation_gives_each_bag_to_one_rank_once(lengths, world, size, budget, seed) -> None:
    samplers, found = ranks(lengths, world, size, budget, seed, shuffle=False)
    assert sorted(row for batches in found for rows in batches for row in rows) == [*range(len(lengths))]
    assert [len(sampler) for sampler in samplers] == [len(batches) for batches in found]
    assert len({len(batches) for batches in found}) == 1
    _, [alone] = ranks(lengths, 1, size, budget, seed, shuffle=False)
    assert sorted(rows for batches in found for rows in batches if rows) == sorted(alone)
    for rows in alone:
        assert 0 < len(rows) <= size
        assert budget is None or len(rows) * lengths[rows].max() <= budget  # as they are measured: padded


@given(**cases, epoch=st.integers(0, 3))
def test_training_keeps_to_both_limits_with_as_many_batches_in_every_epoch(
    lengths, world, size, budget, seed, epoch
) -> None:
    samplers, found = ranks(lengths, world, size, budget, seed, shuffle=True, epoch=epoch)
    assert {row for batches in found for rows in batches for row in rows} == set(range(len(lengths)))
    assert {len(batches) for batches in found} == {len(samplers[0])}
    for rows in (rows for batches in found for rows in batches):
        assert 0 < len(rows) <= size
        assert budget is None or lengths[rows].sum() <= budget


@given(**{name: case for name, case in cases.items() if name != "world"})
def test_training_on_one_rank_gives_each_bag_once(lengths, size, budget, seed) -> None:
    _, [batches] = ranks(lengths, 1, size, budget, seed, shuffle=True)
    assert sorted(row for rows in batches for row in rows) == [*range(len(lengths))]


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=64)

    def epoch(seed: int, number: int) -> list[list[int]]:
        return ranks(lengths, 1, 8, 500, seed, shuffle=True, epoch=number)[1][0]

    assert epoch(0, 3) == epoch(0, 3)
    assert epoch(0, 3) != epoch(0, 4)
    assert epoch(0, 3) != epoch(1, 3)


def test_any_two_bags_of_one_size_may_meet() -> None:
    together = np.zeros((12, 12))
    sampler = BagBatches(np.full(12, 5), 3, shuffle=True)
    for epoch in range(300):
        sampler.set_epoch(epoch)
        for rows in sampler:
            together[np.ix_(rows, rows)] += 1
    met = together[np.triu_indices(12, 1)] / 300
    assert met.min() > 0.1
    assert met.mean() == pytest.approx(2 / 11, abs=0.01)


def test_batches_of_large_and_small_bags_cost_about_the_same() -> None:
    lengths = np.random.default_rng(0).lognormal(3, 1.5, size=1000).astype(np.int64).clip(1, 5000)
    costs = np.array([lengths[rows].sum() for rows in BagBatches(lengths, 64, shuffle=True, max_instances=16384)])
    assert costs.max() <= 16384
    plain = np.random.default_rng(0).permutation(1000)[:960].reshape(-1, 64)
    assert costs.std() < lengths[plain].sum(axis=1).std()


def test_fewer_bags_come_together_only_where_the_budget_asks_for_it() -> None:
    assert len(BagBatches(np.full(100, 10), 10, shuffle=True, max_instances=100)) == 10
    assert len(BagBatches(np.full(100, 10), 10, shuffle=True, max_instances=50)) == 20
    assert len(BagBatches(np.full(100, 10), 10, shuffle=False, max_instances=50)) == 20


def test_a_resumed_place_holds_for_the_next_pass_only() -> None:
    sampler = BagBatches(np.arange(1, 41), 4, shuffle=True, max_instances=200)
    whole = list(sampler)
    sampler.resume(lambda: (0, 3))
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole


def test_a_bag_over_the_limit_is_refused() -> None:
    with pytest.raises(InputError, match="A bag has 5,000 instances; max_instances must be at least that, not 4,096"):
        BagBatches(np.array([5, 5000]), 8, shuffle=True, max_instances=4096)
