"""The data of each experiment: the same texts for every seed, in another order."""

from __future__ import annotations

import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reordered import Reordered
from lightning_attn.data import (
    BlockMaskDataModule,
    DefaultTokens,
    ERASERDataModule,
    SSTDataModule,
    SyntheticReviewsDataModule,
    TextDataModule,
    WordProcessor,
)
from lightning_attn.data.bags import MNIST, DigitPairsDataModule, Digits
from lightning_attn.data.base import AttentionDataModule

DEFAULT_TOKENS = 4
REVIEWS = {"train": 8000, "test": 1000}


def some_reviews(folder: Path, work: Path) -> Path:
    """A folder with so many reviews of each file, as many of each class, drawn once."""
    found = work / f"imdb-{REVIEWS['train']}"
    for split, count in REVIEWS.items():
        if (found / f"{split}.jsonl").is_file():
            continue
        with lzma.open(folder / f"{split}.jsonl.xz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        chosen: list[Any] = []
        for label in sorted({row["label"] for row in rows}):
            chosen += random.Random(0).sample([row for row in rows if row["label"] == label], count // 2)
        found.mkdir(parents=True, exist_ok=True)
        unfinished = found / f"{split}.{os.getpid()}"
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in chosen))
        unfinished.replace(found / f"{split}.jsonl")
    return found


def _synthetic(processor: Any, **more: Any) -> AttentionDataModule:
    sizes = {"train_size": 320, "val_size": 60, "test_size": 80}
    return SyntheticReviewsDataModule(**sizes, negation=0.0, processor=processor, **more)


def words(**options: Any) -> WordProcessor:
    """Words that occur twice in training; the others train ``<unk>``, which replaces tokens in version B."""
    return WordProcessor(min_frequency=2, **options)


Source = Callable[[Path, Path, Any], AttentionDataModule]

#: By name, from the folder of all data, a folder for files made here and the processor, the data.
SOURCES: dict[str, Source] = {
    "SST": lambda root, work, processor: SSTDataModule(root / "sst", processor=processor or words()),
    "SST+Wiki": lambda root, work, processor: BlockMaskDataModule(root / "sst_wiki", processor=processor or words()),
    "IMDB": lambda root, work, processor: TextDataModule(
        some_reviews(root / "imdb", work), processor=processor or words(max_length=200)
    ),
    "movies": lambda root, work, processor: ERASERDataModule(
        root / "eraser_movies", processor=processor or words(max_length=300)
    ),
    "patches": lambda root, work, processor: DigitPairsDataModule(MNIST(root / "mnist", letters=(3, 8)), 4, 6000),
    "digits": lambda root, work, processor: DigitPairsDataModule(Digits(letters=(3, 8)), 2, 200, 60, 80),
    "reviews": lambda root, work, processor: _synthetic(processor, distractors=0.0),
    "reviews+noise": lambda root, work, processor: _synthetic(processor, distractors=1.0),
}


def data_of(cell: dict[str, Any], root: str, work: str) -> Reordered:
    """The data of a cell; with default tokens for the content-free task."""
    processor = DefaultTokens(DEFAULT_TOKENS, words()) if cell["mask"] == "content-free" else None
    source = SOURCES[cell["data"]]
    return Reordered(source(Path(root), Path(work), processor), cell["batch"], cell["seed"])
