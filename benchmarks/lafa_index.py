"""What borrowing costs: ``python -m benchmarks.lafa_index`` builds indices and times LAFA against its base score.

The training texts of SST and IMDB where LIGHTNING_ATTN_DATA says they are, else as many made-up texts of such lengths;
an untrained BiLSTM, whose arithmetic is that of a trained one. Parity first: with a strength of 0, LAFA is its base
score, and the neighbours are those that distances in double precision give.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lightning_attn.attribution import LAFA, get
from lightning_attn.attribution.lafa import Nearest, NeighbourIndex, Query, Reader, text_digests
from lightning_attn.data import AttentionDataModule, SSTDataModule, SyntheticReviewsDataModule, TextDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.networks import PooledNetwork
from lightning_attn.types import Batch

REPEATS, BATCHES, BATCH_SIZE, BASE = 9, 6, 32, "simple_gradient"


def collections() -> dict[str, AttentionDataModule]:
    """By name: many short texts, and 25,000 long ones."""
    folder = os.environ.get("LIGHTNING_ATTN_DATA")
    if folder:
        return {
            "SST": SSTDataModule(f"{folder}/sst", evaluation_batch_size=BATCH_SIZE),
            "IMDB": TextDataModule(f"{folder}/imdb", val_share=0, evaluation_batch_size=BATCH_SIZE),
        }
    return {
        "short": SyntheticReviewsDataModule(7_000, 10, 200, default_tokens=12, evaluation_batch_size=BATCH_SIZE),
        "long": SyntheticReviewsDataModule(25_000, 10, 200, default_tokens=230, evaluation_batch_size=BATCH_SIZE),
    }


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def queries(network: PooledNetwork, index: NeighbourIndex, batches: list[Batch]) -> list[Query]:
    """The texts as the search wants them."""
    found = []
    for batch in batches:
        reading = Reader(network, index.description.layer).read(batch)
        found.append(Query(reading.vectors, text_digests(batch), reading.logits.argmax(-1), batch.index))
    return found


def check(network: PooledNetwork, index: NeighbourIndex, batch: Batch) -> None:
    """Parity of scores, and of what is found."""
    base = get(BASE).attribute(network, batch)
    torch.testing.assert_close(LAFA(index, strength=0, mix="raw").attribute(network, batch), base)
    (query,) = queries(network, index, [batch])
    found = Nearest(10, None).select(index, query)
    exact = torch.cdist(query.vectors.double(), index.vectors.double(), compute_mode="donot_use_mm_for_euclid_dist")
    own = index.digests == query.digests[:, None]
    expected = exact.masked_fill(own, torch.inf).topk(10, largest=False).values
    torch.testing.assert_close(found.distances.double(), expected, atol=1e-4, rtol=1e-4)


def measure(name: str, texts: AttentionDataModule, folder: Path) -> None:
    """Build, check, and time on the first batches of the test split."""
    texts.prepare_data()
    texts.setup("fit")
    torch.manual_seed(0)
    network = PooledNetwork(BiLSTM()).build(texts.schema).eval()
    batches = [batch for _, batch in zip(range(BATCHES), texts.test_dataloader(), strict=False)]
    count = sum(map(len, batches))
    tokens = sum(int(batch.valid.sum()) for batch in batches) / count

    wall, busy = time.perf_counter(), time.process_time()
    index = NeighbourIndex.build(network, texts, folder / name, base=BASE)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    size = sum(file.stat().st_size for file in index.path.iterdir()) / 1e6
    print(f"{name}: index of {len(index):,} texts, {wall:.0f} s, {busy:.0f} s of processor time, {size:.0f} MB")
    check(network, index, batches[0])

    base, local, nearest, asked = get(BASE), LAFA(index), Nearest(), queries(network, index, batches)
    calls: list[Callable[[], object]] = [
        lambda: [base.attribute(network, batch) for batch in batches],
        lambda: [local.attribute(network, batch) for batch in batches],
        lambda: [nearest.select(index, query) for query in asked],
    ]
    times = [[seconds(call) for call in calls] for _ in range(REPEATS)]  # alternating: a busy machine slows all
    plain, borrowed, searched = (statistics.median(column) / count * 1000 for column in zip(*times, strict=True))
    ratio = statistics.median(row[1] / row[0] for row in times)
    print(f"  batches of {BATCH_SIZE}, {tokens:.0f} tokens per text; each: base score {plain:.2f} ms, LAFA ", end="")
    print(f"{borrowed:.2f} ms, {ratio:.2f}x (at most 1.30); neighbours alone {searched:.2f} ms (at most 5)")


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help="one of the collections: SST, IMDB, short, long")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name, texts in collections().items():
            if arguments.only in (None, name):
                measure(name, texts, Path(folder))


if __name__ == "__main__":
    main()
