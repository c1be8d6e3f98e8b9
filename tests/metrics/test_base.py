from __future__ import annotations

import pickle
import socket
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_attn.metrics import (
    IOUF1,
    AnswerRecall,
    BestAnswers,
    ChunkMean,
    ExampleMean,
    LeakedBits,
    RiskCoverageGain,
)
from lightning_attn.metrics.functional import entropy

ALL = [
    AnswerRecall,
    BestAnswers,
    ExampleMean,
    IOUF1,
    LeakedBits,
    RiskCoverageGain,
    partial(ChunkMean, 3),
    partial(ExampleMean, entropy),
]

VALUES = torch.tensor([1.0, 2.0, torch.nan, 4.0, 5.0, 7.0, torch.nan])
MEAN = (1 + 2 + 4 + 5 + 7) / 5


def test_an_example_counts_once_and_undefined_ones_not_at_all():
    metric = ExampleMean()
    metric.update(VALUES[:4], torch.arange(4))
    metric.update(VALUES[3:], torch.arange(3, 7))
    metric.update(VALUES[:2], torch.tensor([0, 1]))
    assert metric.compute().item() == pytest.approx(MEAN)
    assert (metric.count, metric.skipped) == (5, 2)


def test_order_does_not_matter_by_one_bit():
    values, index = torch.rand(1000), torch.arange(1000)
    shuffled = torch.randperm(1000)
    results = []
    for rows in (index, shuffled):
        metric = ExampleMean()
        for part in rows.split(64):
            metric.update(values[part], part)
        results.append(metric.compute())
    assert torch.equal(*results)


def test_nothing_gives_nan_and_reset_starts_anew():
    metric = ExampleMean()
    metric.update(torch.tensor([]), torch.tensor([], dtype=torch.int64))
    assert metric.compute().isnan()
    metric.update(torch.tensor([torch.nan]), torch.tensor([3]))
    assert metric.compute().isnan()
    assert metric.skipped == 1
    metric.reset()
    metric.update(torch.tensor([2.0]), torch.tensor([3]))
    assert metric.compute().item() == 2.0
    assert metric.skipped == 0


def test_forward_gives_the_batch_and_keeps_the_total():
    metric = ExampleMean()
    assert metric(torch.tensor([1.0, 3.0]), torch.tensor([0, 1])).item() == 2.0
    assert metric(torch.tensor([8.0]), torch.tensor([2])).item() == 8.0
    assert metric.compute().item() == 4.0


@pytest.mark.parametrize("kind", ALL)
def test_invariants_of_torchmetrics(kind):
    metric = kind()
    assert metric.full_state_update is False
    assert metric.is_differentiable is False
    assert metric.state_dict() == {}
    metric.add(torch.rand(3, metric.columns), torch.arange(3))
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(copy.rows()[0], metric.rows()[0])
        assert copy.rows()[0].shape == (3, metric.columns)
    assert hash(metric) != hash(kind())


SHARDS = {
    2: [([0, 1, 2, 3], [3, 0]), ([4, 5], [6, 4, 3])],
    3: [([0, 1, 2], [3, 0]), ([4, 5, 3, 6],), ()],
}


def gather(rank: int, port: int, results) -> None:
    """One of three processes: uneven shards with repeats, one that gets nothing; then two of them alone."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    pair = dist.new_group([0, 1])
    for world, group in ((3, dist.group.WORLD), (2, pair)):
        if rank >= world:
            continue
        mean, spans, leaked = (kind(process_group=group) for kind in (ExampleMean, IOUF1, LeakedBits))
        for rows in SHARDS[world][rank]:
            rows = torch.tensor(rows)
            mean.update(VALUES[rows], rows)
            spans.update(VALUES[rows] / 7, VALUES[rows] / 14, rows)
        own = torch.arange(60)[torch.arange(60) % 2 == rank]
        if len(own):
            leaked.add(features()[own], own)
        leaks = leaked.compute()["leaked_bits"].item()
        results[world, rank] = (mean.compute().item(), mean.count, mean.skipped, spans.compute().item(), leaks)
        mean.reset()
        if rank == 0:
            mean.update(VALUES[:1], torch.tensor([0]))
        results[world, rank, "again"] = mean.compute().item()
    dist.barrier()  # the third process must not take its connections away while the pair still works
    dist.destroy_process_group()


def features() -> torch.Tensor:
    """Rows for ``LeakedBits``: the last column is the target."""
    rows = torch.arange(60.0)[:, None].expand(-1, LeakedBits.columns).clone()
    rows[:, -1] = torch.arange(60) % 2
    return rows


def test_any_number_of_processes_gives_the_figure_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = mp.get_context("spawn").Manager().dict()
    mp.spawn(gather, args=(port, results), nprocs=3)
    single, spans, leaked = ExampleMean(), IOUF1(), LeakedBits()
    single.update(VALUES, torch.arange(7))
    spans.update(VALUES / 7, VALUES / 14, torch.arange(7))
    leaked.add(features(), torch.arange(60))
    expected = (single.compute().item(), 5, 2, spans.compute().item(), leaked.compute()["leaked_bits"].item())
    for world in (2, 3):
        for rank in range(world):
            assert results[world, rank] == expected
            assert results[world, rank, "again"] == 1.0


def test_chunk_means_are_those_of_consecutive_parts_in_any_order() -> None:
    metric = ChunkMean(3)
    values = torch.tensor([1.0, 2, 3, torch.nan, torch.nan, torch.nan, 4, 5, torch.nan, 11, 20])
    order = torch.tensor([10, 3, 0, 7, 5, 1, 9, 2, 8, 6, 4])
    metric.update(values[order][:6], order[:6])
    metric.update(values[order][4:], order[4:])  # two examples come twice
    # parts of 11 // 3 = 3: means 2, undefined, 4.5, and of what is left over 15.5
    assert metric.compute().item() == pytest.approx((2 + 4.5 + 15.5) / 3)
    assert (metric.count, metric.skipped) == (7, 4)
    assert ChunkMean(2).compute().isnan()
    alone = ChunkMean(10)  # more parts than examples: one each
    alone.update(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    assert alone.compute().item() == 2
