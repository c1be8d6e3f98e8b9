"""Data of the selection benchmark, their sizes, and the black boxes that are explained."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import seed_everything

from benchmarks.fitting import fit_best
from benchmarks.reordered import Reordered
from benchmarks.shortcut.data import some_reviews, words
from lightning_attn.attention.scorers import UniformAttention
from lightning_attn.data import BlockMaskDataModule, ERASERDataModule, SSTDataModule, TextDataModule
from lightning_attn.data.bags import MNIST, DigitPairsDataModule, Digits
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.networks import PooledNetwork
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.selector import PictureSelectorNetwork
from lightning_attn.tasks import AttentionClassifier

BLACK_BOX_SEED = 77
GECO_VALIDATION = 5  # every fifth sentence, with both of its versions
Source = Callable[[Path, Path], AttentionDataModule]


@dataclass(frozen=True)
class Setting:
    """What a data set is tried with.

    Attributes:
        source: From the folder of all data and a folder for files made here, the data.
        k: How many positions are selected.
        epochs: Of selector and reader together; an arm with two phases has half of them for each.
        batch: Examples of a training batch.
        rate: Learning rate of AdamW.
        warmup: Steps before instance weights act, beyond pretraining: about an epoch.
        greedy: Test examples of greedy forward selection.
        pictures: Whether positions are patches of a picture.
        size: Embedding and hidden size of encoders of texts.
        evidence: What ground truth there is, in words.
        black_box_epochs: At most so many; validation loss chooses among them.
    """

    source: Source
    k: int
    epochs: int = 8
    batch: int = 32
    rate: float = 1e-3
    warmup: int = 200
    greedy: int = 200
    pictures: bool = False
    size: tuple[int, int] = (100, 64)
    evidence: str = ""
    black_box_epochs: int = 5


def _geco(folder: Path) -> TextDataModule:
    """All words that refer to the protagonist differ; a part of the training sentences validates."""
    columns: dict[str, dict[str, list[Any]]] = {}
    for name in ("train", "test"):
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            split = "val" if name == "train" and row["sentence_idx"] % GECO_VALIDATION == 0 else name
            kept = columns.setdefault(split, {"text": [], "label": [], "evidence": []})
            kept["text"].append(row["sentence"])
            kept["label"].append(row["target"])
            kept["evidence"].append(row["ground_truth"])
    return TextDataModule(columns, evidence="evidence", processor=words())


SETTINGS: dict[str, Setting] = {
    "MNIST pairs": Setting(
        lambda root, work: DigitPairsDataModule(MNIST(root / "mnist", letters=(3, 8)), 4, 8000, 2000, 2000),
        k=10,
        batch=64,
        warmup=125,
        pictures=True,
        evidence="patches with ink of the digit that decides",
    ),
    "digits": Setting(
        lambda root, work: DigitPairsDataModule(Digits(letters=(3, 8)), 2, 3000, 600, 600),
        k=4,
        warmup=94,
        pictures=True,
        evidence="patches with ink of the digit that decides",
        black_box_epochs=8,
    ),
    "few digits": Setting(
        lambda root, work: DigitPairsDataModule(Digits(letters=(3, 8)), 2, 320, 80, 80),
        k=4,
        epochs=2,
        warmup=4,
        greedy=20,
        pictures=True,
        black_box_epochs=2,
    ),
    "SST": Setting(
        lambda root, work: SSTDataModule(root / "sst", processor=words()),
        k=3,
        evidence="words with the sentence's own polarity",
    ),
    "SST+Wiki": Setting(
        lambda root, work: BlockMaskDataModule(root / "sst_wiki", processor=words()),
        k=3,
        evidence="all words of the half that decides",
    ),
    "GECO": Setting(
        lambda root, work: _geco(root / "geco" / "binary_gender_all"),
        k=3,
        warmup=64,
        evidence="the words that differ between the two versions of a sentence",
        black_box_epochs=8,
    ),
    "IMDB": Setting(
        lambda root, work: TextDataModule(some_reviews(root / "imdb", work), processor=words(max_length=200)),
        k=10,
        epochs=6,
        batch=64,
        rate=2e-3,
        warmup=110,
        greedy=30,
        evidence="",
    ),
    "movies": Setting(
        lambda root, work: ERASERDataModule(root / "eraser_movies", processor=words(max_length=300)),
        k=15,
        rate=2e-3,
        warmup=50,
        greedy=20,
        evidence="human rationales",
        black_box_epochs=8,
    ),
}


def data_of(name: str, seed: int, root: str, work: str) -> Reordered:
    """Its splits, the same for every seed, with training batches in the order of the seed."""
    setting = SETTINGS[name]
    return Reordered(setting.source(Path(root), Path(work)), setting.batch, seed)


def black_box_of(name: str, root: str, work: str) -> AttentionNetwork:
    """The black box of these data: one for all arms and seeds; trained if its file is not there yet."""
    setting, data = SETTINGS[name], data_of(name, BLACK_BOX_SEED, root, work)
    embedding, hidden = setting.size
    seed_everything(BLACK_BOX_SEED, verbose=False)
    network: AttentionNetwork = (
        PictureSelectorNetwork(attention=UniformAttention())
        if setting.pictures
        else PooledNetwork(BiLSTM(embedding, hidden, "contextual"))
    )
    file = Path(work) / f"black_box_{name.lower().replace(' ', '_').replace('+', '_')}.pt"
    if file.is_file():
        network.build(data.schema).load_state_dict(torch.load(file, weights_only=True))
        return network.eval()
    module = AttentionClassifier(
        network, optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=setting.rate, weight_decay=1e-5)
    )
    with tempfile.TemporaryDirectory() as folder:
        fit_best(module, data, setting.black_box_epochs, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    torch.save(network.state_dict(), unfinished)
    unfinished.replace(file)
    return network.eval()
