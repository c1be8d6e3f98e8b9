from types import SimpleNamespace

import torch

from lightning_attn.callbacks.sampled import ExampleSample
from lightning_attn.types import Batch
from tests.helpers.toys import toy_batch


def strategy(*others: ExampleSample, size: int = 0) -> SimpleNamespace:
    """Gathers the keys of other processes, too."""

    def all_gather(mine: torch.Tensor) -> torch.Tensor:
        theirs = [torch.full_like(mine, torch.iinfo(torch.int64).max) for _ in others]
        for keys, other in zip(theirs, others, strict=True):
            if other._keys is not None:
                keys[: len(other._keys)] = other._keys
        return torch.stack([mine, *theirs])

    return SimpleNamespace(all_gather=all_gather, root_device=torch.device("cpu"))


def batches(count: int = 10, size: int = 8) -> list[Batch]:
    made = [toy_batch(lengths=[3 + (row * 5) % 11 for row in range(size)], seed=seed) for seed in range(count)]
    return [batch.replace(index=torch.arange(size) + size * number) for number, batch in enumerate(made)]


def rows(sample: ExampleSample, *others: ExampleSample) -> list[int]:
    return [row for batch in sample.collected(strategy(*others)) for row in batch.index.tolist()]  # type: ignore[arg-type]


def sampled(parts: list[Batch], size: int | None = 12, seed: int = 0) -> ExampleSample:
    sample = ExampleSample(size, seed)
    for part in parts:
        sample.add(part)
    return sample


def test_the_sample_has_its_size_and_does_not_depend_on_the_order_of_batches() -> None:
    there, back = rows(sampled(batches())), rows(sampled(batches()[::-1]))
    assert len(there) == 12
    assert sorted(there) == sorted(back)


def test_the_sample_is_drawn_from_everywhere_and_another_seed_draws_another() -> None:
    found = sorted(rows(sampled(batches(100, 8), size=200)))
    # Of 800 rows: 200 uniform draws have a mean within 5 standard errors of the middle.
    assert abs(sum(found) / 200 - 399.5) < 5 * 231 / 200**0.5
    assert found != sorted(rows(sampled(batches(100, 8), size=200, seed=1)))


def test_processes_together_choose_what_one_alone_chooses() -> None:
    parts = batches(9)
    alone = sorted(rows(sampled(parts)))
    ranks = [sampled(parts[rank::4]) for rank in range(3)] + [ExampleSample(12)]  # the last one has no example
    ranks[1].add(parts[3])
    found = [rows(rank, *(other for other in ranks if other is not rank)) for rank in ranks]
    expected = sorted(row for row in rows(sampled([part for rank in range(3) for part in parts[rank::4]] + [parts[3]])))
    assert sorted(row for part in found for row in part) == expected
    assert found[3] == []
    assert len(alone) == 12


def test_batches_are_not_mixed_so_that_results_do_not_depend_on_the_processes() -> None:
    parts = batches()
    for batch in sampled(parts).collected(strategy()):  # type: ignore[arg-type]
        assert len(set((batch.index // 8).tolist())) == 1


def test_a_row_that_comes_twice_is_kept_once() -> None:
    parts = batches(2)
    assert sorted(rows(sampled([*parts, *parts], size=None))) == list(range(16))


def test_padding_that_no_chosen_example_needs_is_cut() -> None:
    for batch in sampled(batches(), size=3).collected(strategy()):  # type: ignore[arg-type]
        assert batch.valid.any(dim=0).all()
        assert batch.inputs.shape == batch.valid.shape == batch.special.shape


def test_examples_kept_in_inference_mode_can_be_differentiated() -> None:
    sample = ExampleSample(None)
    with torch.inference_mode():
        sample.add(toy_batch().apply(torch.clone))
    (batch,) = sample.collected(strategy())  # type: ignore[arg-type]
    assert not batch.inputs.is_inference()


def test_an_empty_batch_adds_nothing() -> None:
    sample = sampled([toy_batch().select(torch.arange(0))])
    assert rows(sample) == []
    sample.clear()
    assert rows(sample) == []
