"""The data of each task, read by a model's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import Cell
from benchmarks.measuring import order_at
from benchmarks.reordered import Reordered
from lightning_attn.data import (
    ERASERDataModule,
    HuggingFacePairProcessor,
    HuggingFaceProcessor,
    NLIDataModule,
    QuestionProcessor,
    SQuADDataModule,
    SSTDataModule,
)
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.data.encoded import Array, SplitDataset
from lightning_attn.types import Batch

STRIDE = 128  # tokens that windows of a long paragraph share
CONLLU = "ud_english_ewt/en_ewt-ud-train.conllu"


class Part(SplitDataset):
    """Some rows of a split, numbered anew.

    Args:
        whole: The split.
        rows: Which of its rows.
    """

    def __init__(self, whole: SplitDataset, rows: Array) -> None:
        self.whole = whole
        self.rows = rows

    @property
    def lengths(self) -> Array:
        return self.whole.lengths[self.rows]  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: int | Sequence[int]) -> Batch:
        chosen = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        return self.whole[self.rows[chosen].tolist()].replace(index=torch.from_numpy(chosen))


class Limited(Reordered):
    """Other data, of whose splits only so many texts are kept, always the same ones.

    Args:
        data: See :class:`Reordered`.
        batch_size: See :class:`Reordered`.
        seed: See :class:`Reordered`.
        most: Most texts of a split, by its name; None keeps all.
    """

    def __init__(self, data: AttentionDataModule, batch_size: int, seed: int, most: Mapping[str, int | None]) -> None:
        super().__init__(data, batch_size, seed)
        self.most = most

    def dataset(self, split: str) -> SplitDataset:
        whole, most = super().dataset(split), self.most.get(split)
        return whole if most is None or most >= len(whole) else Part(whole, order_at(len(whole))[:most])


Source = Callable[[Path, str, int, Path], AttentionDataModule]

#: From the folder of all data, the model, the most tokens of a text and a folder for what is prepared.
SOURCES: dict[str, Source] = {
    "SST": lambda root, model, length, cache: SSTDataModule(
        root / "sst", processor=HuggingFaceProcessor(model, length), cache_dir=cache
    ),
    "movies": lambda root, model, length, cache: ERASERDataModule(
        root / "eraser_movies", processor=HuggingFaceProcessor(model, length), cache_dir=cache
    ),
    "NLI": lambda root, model, length, cache: NLIDataModule(
        root / "counterfactual_nli/all_combined/train.tsv.xz",
        root / "snli/dev.csv.xz",
        root / "snli/test.csv.xz",
        processor=HuggingFacePairProcessor(model, length),
        cache_dir=cache,
    ),
}


def data_of(cell: Cell, root: str, model: str, work: str) -> AttentionDataModule:
    """The data of a cell, set up."""
    if cell["task"] == "QA":
        questions = SQuADDataModule(
            Path(root) / "squad_xquad_en/xquad.en.json",
            QuestionProcessor(model, cell["length"], min(STRIDE, cell["length"] // 4)),
            cache_dir=Path(work) / "cache",
            batch_size=cell["batch"],
        )
        questions.prepare_data()
        questions.setup()
        return questions
    made = SOURCES[cell["task"]](Path(root), model, cell["length"], Path(work) / "cache")
    return Limited(made, cell["batch"], cell["seed"], {name: cell[name] for name in ("train", "val")})
