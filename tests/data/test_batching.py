import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.data import BucketBatches

sizes = {"count": st.integers(0, 60), "world": st.integers(1, 7), "batch": st.integers(1, 9), "seed": st.integers(0, 5)}


def of_each_rank(count: int, world: int, batch: int, seed: int, *, shuffle: bool, epoch: int = 0):
    lengths = np.random.default_rng(seed).integers(1, 30, size=count)
    samplers = [
        BucketBatches(lengths, batch, shuffle=shuffle, seed=seed, rank=rank, world_size=world) for rank in range(world)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return samplers, [list(sampler) for sampler in samplers]


@given(**sizes)
def test_evaluation_gives_each_row_to_one_rank_once(count: int, world: int, batch: int, seed: int) -> None:
    samplers, ranks = of_each_rank(count, world, batch, seed, shuffle=False)
    rows = [row for batches in ranks for rows in batches for row in rows]
    assert sorted(rows) == list(range(count))
    assert [len(sampler) for sampler in samplers] == [len(batches) for batches in ranks]


@given(**sizes)
def test_evaluation_batches_are_the_same_for_any_number_of_ranks(count: int, world: int, batch: int, seed: int) -> None:
    _, ranks = of_each_rank(count, world, batch, seed, shuffle=False)
    _, [alone] = of_each_rank(count, 1, batch, seed, shuffle=False)
    assert sorted(rows for batches in ranks for rows in batches if rows) == sorted(alone)
    assert len({len(batches) for batches in ranks}) == 1  # Lightning skips the hooks of a rank without a batch


@given(**sizes)
def test_training_gives_every_row_and_as_many_batches_to_each_rank(
    count: int, world: int, batch: int, seed: int
) -> None:
    samplers, ranks = of_each_rank(count, world, batch, seed, shuffle=True)
    assert {row for batches in ranks for rows in batches for row in rows} == set(range(count))
    assert {len(batches) for batches in ranks} == {len(samplers[0])}
    assert all(0 < len(rows) <= batch for batches in ranks for rows in batches)


@given(**sizes)
def test_training_on_one_rank_gives_each_row_once(count: int, world: int, batch: int, seed: int) -> None:
    _, [batches] = of_each_rank(count, 1, batch, seed, shuffle=True)
    assert sorted(row for rows in batches for row in rows) == list(range(count))


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    def epoch(seed: int, number: int) -> list[list[int]]:
        return of_each_rank(50, 1, 4, seed, shuffle=True, epoch=number)[1][0]

    assert epoch(0, 3) == epoch(0, 3)
    assert epoch(0, 3) != epoch(0, 4)
    assert epoch(0, 3) != epoch(1, 3)


def test_texts_of_a_batch_are_about_equally_long() -> None:
    lengths = np.random.default_rng(0).integers(5, 500, size=2000)
    batches = list(BucketBatches(lengths, 32, shuffle=True))
    spread = np.mean([lengths[rows].max() - lengths[rows].mean() for rows in batches])
    assert spread < 0.25 * np.mean([lengths[rows].mean() for rows in batches])


def test_the_short_batch_is_not_always_that_of_the_longest_texts() -> None:
    lengths = np.arange(1, 34)
    sampler = BucketBatches(lengths, 4, shuffle=True)
    short = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        short += [lengths[rows].mean() for rows in sampler if len(rows) == 1]
    assert len(short) == 20
    assert np.std(short) > 4


def test_a_resumed_pass_begins_at_its_place_and_the_next_at_the_start() -> None:
    sampler = BucketBatches(np.arange(1, 41), 4, shuffle=True)
    sampler.set_epoch(3)
    whole = list(sampler)
    sampler.set_epoch(0)
    place = (0, 0)
    sampler.resume(lambda: place)
    place = (3, 7)  # asked when the pass begins
    assert list(sampler) == whole[7:]
    assert list(sampler) == whole


def test_first_evaluation_batches_are_not_the_shortest() -> None:
    lengths = np.arange(1, 1001)
    firsts = [lengths[next(iter(BucketBatches(lengths, 10, shuffle=False, seed=seed)))].mean() for seed in range(30)]
    assert np.mean(firsts) == pytest.approx(500, abs=200)
