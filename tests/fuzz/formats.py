"""The formats that the package reads: small good files of each, our reader, and where there is one, another reader."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import lzma
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lightning_attn.attribution.heads.heads_file import HeadsFile
from lightning_attn.attribution.lafa import NeighbourIndex
from lightning_attn.cli import training
from lightning_attn.data import (
    ADEDataModule,
    BabiDataModule,
    BlockMaskDataModule,
    ERASERDataModule,
    NLIDataModule,
    SSTDataModule,
    TextDataModule,
    WordProcessor,
)
from lightning_attn.data.bags import MNIST, BagArrayDataModule, BagDataModule, BagTableDataModule, Presence
from lightning_attn.data.conllu import read_conllu
from lightning_attn.data.questions import read_questions
from lightning_attn.data.vectors import read_word_vectors
from lightning_attn.networks.trained import load_network
from lightning_attn.tasks import AttentionClassifier
from tests.data.bags.test_modalities import write_mnist
from tests.helpers import commands
from tests.helpers.runs import tiny_data, tiny_module

Files = dict[str, bytes]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        make: Good files by name.
        read: Reads those in a folder; gives the number of rows, and the notes on what was left out.
        count: Another reader: how many rows there are, or None where it refuses them too.
        damaged: The ending of those that are to be damaged.
        share: How many mutations, beside those of a format that is read in milliseconds.
    """

    make: Callable[[], Files]
    read: Callable[[Path], tuple[int, str]]
    count: Callable[[Path], int | None] = lambda folder: None
    damaged: str = ""
    share: float = 1.0


# Tables of texts

TEXTS = ("so good", 'not "bad", really', "a, b and\nc", "f\u00fcnf \u597d\u7684", "good film", "bad film")
ROWS = [{"text": text, "label": "pn"[row % 2], "number": row} for row, text in enumerate(TEXTS * 2)]
LISTS = [
    {"text": words, "label": ["a", "b"][: 1 + row % 2], "why": [row % 2] * len(words), "spans": [[0, 1]]}
    for row, words in enumerate([text.split() for text in TEXTS])
]
SPANS = [{"text": text, "label": row % 2, "spans": [[0, 2], [3, 4]]} for row, text in enumerate(TEXTS)]


def _delimited(separator: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=5)
    return file.getvalue()


def _texts(folder: Path, **arguments: Any) -> tuple[int, str]:
    (file,) = folder.glob("a.*")
    return _opened(TextDataModule(file, val_share=0, test_share=0, cache_dir=folder / "cache", **arguments))


def _opened(data: Any) -> tuple[int, str]:
    data.prepare_data()
    data.setup()
    for split in data.splits:
        data.dataset(split)[[0]]
    return sum(len(data.dataset(split)) for split in data.splits), data.describe()


def _unpacked(folder: Path) -> bytes:
    (file,) = folder.glob("a.*")
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(file.suffix, bytes)
    return unpack(file.read_bytes())


def _count_delimited(folder: Path, separator: str = ",") -> int:
    text = io.StringIO(_unpacked(folder).decode("utf-8-sig"), newline="")
    return sum(bool(row) for row in csv.reader(text, delimiter=separator, strict=True)) - 1


def _count_json(folder: Path) -> int:
    text = _unpacked(folder).decode("utf-8-sig")
    if text.lstrip().startswith("["):
        return len(json.loads(text))
    return len([json.loads(line) for line in text.split("\n") if line.strip()])


def _count_parquet(folder: Path) -> int:
    return int(pq.read_table(next(folder.glob("a.*"))).num_rows)


DELIMITED = Format(lambda: {"a.csv": _delimited()}, _texts, _count_delimited)
LINES = Format(lambda: {"a.jsonl": _json_lines(ROWS)}, _texts, _count_json)
PARQUET = Format(lambda: {"a.parquet": _parquet(ROWS)}, _texts, _count_parquet)
TABLES = {
    "csv": DELIMITED,
    "tsv": Format(
        lambda: {"a.tsv": _delimited("\t")}, _texts, functools.partial(_count_delimited, separator="\t"), share=0.7
    ),
    "csv.gz": replace(DELIMITED, make=lambda: {"a.csv.gz": gzip.compress(_delimited(), mtime=0)}, share=0.7),
    "csv.xz": replace(DELIMITED, make=lambda: {"a.csv.xz": lzma.compress(_delimited())}, share=0.7),
    "jsonl": LINES,
    "jsonl, lists": Format(
        lambda: {"a.jsonl": _json_lines(LISTS)}, functools.partial(_texts, evidence="why"), _count_json
    ),
    "jsonl, spans": Format(
        lambda: {"a.jsonl": _json_lines(SPANS)}, functools.partial(_texts, spans="spans"), _count_json
    ),
    "json": replace(LINES, make=lambda: {"a.json": json.dumps(ROWS).encode()}),
    "parquet": PARQUET,
    "parquet, lists": Format(
        lambda: {"a.parquet": _parquet(LISTS)}, functools.partial(_texts, evidence="why"), _count_parquet
    ),
}

# Corpora in formats of their own

TREES = "(4 (2 A) (4 (3 (4 joy)) (2 .)))\n(1 (2 (2 No) (2 -LRB-)) (0 awful))\n(2 (3 (2 So) (4 great)) (2 a\\/b))\n"
BLOCKS = ("1\tSo good . It is  a town .\n0\tBad film . The river is long .\n", "1 1 1 0 0 0 0 0\n1 1 1 0 0 0 0 0\n")
STORY = (
    "1 Mary moved to the bathroom.\n2 John went to the hallway.\n3 Where is Mary? \tbathroom\t1\n"
    "4 John moved to the garden.\n5 Where is John? \tgarden\t4\n"
)
RELATIONS = (
    "1|After aspirin, a rash and then fever; aspirin again.|rash|219|223|aspirin|208|215\n"
    "1|After aspirin, a rash and then fever; aspirin again.|fever|133|138|aspirin|140|147\n"
) + "".join(f"{n}|Case {n}: pills gave spots.|spots|20|25|pills|9|14\n" for n in range(2, 16))
NEGATIVES = "".join(f"{100 + n} NEG Case {n} was well.\n" for n in range(16))
PAIRS = [
    {"sentence1": f"a man {n}", "sentence2": "a woman", "gold_label": ("entailment", "neutral", "-")[n % 3]}
    for n in range(9)
]
PARSES = (
    "# text = A man can't go\n1\tA\ta\tDET\tDT\t_\t2\tdet\t_\t_\n2\tman\tman\tNOUN\tNN\t_\t5\tnsubj\t_\t_\n"
    "3-4\tcan't\t_\t_\t_\t_\t_\t_\t_\t_\n3\tca\tcan\tAUX\tMD\t_\t5\taux\t_\t_\n4\tn't\tnot\tPART\tRB\t_\t5\tadvmod\t_\t_\n"
    "5\tgo\tgo\tVERB\tVB\tA=1|B=2\t0\troot\t_\tSpaceAfter=No\n5.1\tx\tx\t_\t_\t_\t_\t_\t_\t_\n\n"
) * 2
VECTORS = "3 2\nso 1 2\ngood 0.5 1e-3\nbad 3 4\n"


def _eraser() -> Files:
    spans = [[{"docid": "a.txt", "start_token": 1, "end_token": 3}], [{"docid": "a.txt", "start_token": 4}]]
    spans[1][0]["end_token"] = 5
    rows = [
        {"annotation_id": "a.txt", "classification": "POS", "query": "q", "evidences": spans},
        {"annotation_id": "b.txt", "classification": "NEG", "query": "Is it?", "evidences": []},
    ]
    return {
        "train.jsonl": _json_lines(rows * 2),
        "docs/a.txt": b"It is\ngood , really .\n",
        "docs/b.txt": b"Not for me .\n",
    }


def _squad() -> Files:
    answers = [{"text": "two girls", "answer_start": 0}]
    asked = [{"id": "1", "question": "who?", "answers": answers}, {"id": "2", "question": "why?", "answers": []}]
    paragraphs = [{"context": "two girls sing a song", "qas": asked}]
    return {"a.json": json.dumps({"version": "2", "data": [{"title": "x", "paragraphs": paragraphs}]}).encode()}


def _pairs_of_table(folder: Path) -> tuple[int, str]:
    (file,) = folder.glob("a.*")
    return _opened(NLIDataModule(file, cache_dir=folder / "cache"))


def _vectors(folder: Path) -> tuple[int, str]:
    processor = WordProcessor()
    processor.fit([["so", "good"], ["bad", "film", "so"]])
    vectors, note = read_word_vectors(folder / "v.txt", processor)
    assert not np.isinf(vectors).any()
    return len(vectors), note


CORPORA = {
    "trees": Format(
        lambda: {"train.txt": TREES.encode()}, lambda folder: _opened(SSTDataModule(folder, cache_dir=folder / "c"))
    ),
    "ERASER": Format(_eraser, lambda folder: _opened(ERASERDataModule(folder, query=True, cache_dir=folder / "c"))),
    "block mask": Format(
        lambda: {"train.txt": BLOCKS[0].encode(), "train.txt.block": BLOCKS[1].encode()},
        lambda folder: _opened(BlockMaskDataModule(folder, cache_dir=folder / "c")),
    ),
    "NLI tsv": Format(
        lambda: {"a.tsv": "\n".join("\t".join(row) for row in [PAIRS[0], *(p.values() for p in PAIRS)]).encode()},
        _pairs_of_table,
    ),
    "NLI jsonl": Format(lambda: {"a.jsonl": _json_lines(PAIRS)}, _pairs_of_table),
    "bAbI": Format(
        lambda: {f"qa1_x_{split}.txt": (STORY * 2).encode() for split in ("train", "test")},
        lambda folder: _opened(BabiDataModule(folder, val_share=0, cache_dir=folder / "c")),
    ),
    "ADE": Format(
        lambda: {"DRUG-AE.rel": RELATIONS.encode(), "ADE-NEG.txt": NEGATIVES.encode()},
        lambda folder: _opened(ADEDataModule(folder, cache_dir=folder / "c")),
    ),
    "SQuAD": Format(_squad, lambda folder: (len(read_questions(folder / "a.json")), "")),
    "CoNLL-U": Format(
        lambda: {"a.conllu": PARSES.encode()}, lambda folder: (len(read_conllu(folder / "a.conllu")), "")
    ),
    "word vectors": Format(lambda: {"v.txt": VECTORS.encode()}, _vectors),
}

# Bags


def _bags() -> dict[str, Any]:
    sizes = np.arange(12) % 3 + 1
    values = np.random.default_rng(0).normal(size=sizes.sum()).round(3)
    return {"features": values[:, None], "sizes": sizes, "label": np.array(["no", "yes"] * 6), "key": values > 0}


def _bag_rows() -> list[dict[str, Any]]:
    bag = np.repeat(np.arange(12), np.arange(12) % 3 + 1).tolist()
    values = np.random.default_rng(0).normal(size=len(bag)).round(3).tolist()
    return [
        {"bag": f"b{number}", "feature": value, "label": ("no", "yes")[number % 2]}
        for number, value in zip(bag, values, strict=True)
    ]


def _bag_csv() -> Files:
    rows = _bag_rows()
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    return {"a.csv": "\n".join(lines).encode()}


def _npz() -> Files:
    file = io.BytesIO()
    np.savez(file, **_bags())
    return {"a.npz": file.getvalue()}


def _h5() -> Files:
    file = io.BytesIO()
    with h5py.File(file, "w") as arrays:
        for name, array in _bags().items():
            # strings of fixed length: on damaged ones of any length, HDF5 itself may never return
            arrays[name] = array.astype("S") if array.dtype.kind == "U" else array
    return {"a.h5": file.getvalue()}


def _instances(folder: Path) -> tuple[int, str]:
    (file,) = folder.glob("a.*")
    kind = BagArrayDataModule if file.suffix in (".npz", ".h5") else BagTableDataModule
    data = kind(file, val_share=0, test_share=0, cache_dir=folder / "cache")
    _, notes = _opened(data)
    return sum(int(data.dataset(split).lengths.sum()) for split in data.splits), notes


def _count_arrays(folder: Path) -> int:
    with np.load(folder / "a.npz") as arrays:
        return len(arrays["features"])


def _count_h5(folder: Path) -> int:
    with h5py.File(folder / "a.h5") as file:
        return len(file["features"])


def _images(folder: Path) -> tuple[int, str]:
    return _opened(BagDataModule(Presence(), MNIST(folder), train_size=8, val_size=4, test_size=4))


def _mnist() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        write_mnist(Path(folder), count=200)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


BAGS = {
    "bags csv": Format(_bag_csv, _instances, _count_delimited),
    "bags parquet": Format(lambda: {"a.parquet": _parquet(_bag_rows())}, _instances, _count_parquet),
    "npz": Format(_npz, _instances, _count_arrays),
    "h5": Format(_h5, _instances, _count_h5),
    "idx": Format(_mnist, _images),
}

# What the package writes


@functools.cache
def _trained() -> tuple[bytes, bytes]:
    """Configuration and last checkpoint of a short training."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = {
            "data": {**commands.TINY["data"], "init_args": {"train_size": 16, "val_size": 8, "test_size": 8}},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1},
        }
        config = commands.write_config(folder, **sections)
        run = commands.run("fit", config, folder / "runs")
        return config.read_bytes(), (run / "checkpoints" / "last.ckpt").read_bytes()


@contextmanager
def _untrained() -> Iterator[None]:
    """Everything is parsed and made, and nothing is trained."""
    with mock.patch.object(training.AttentionCLI, "_run_subcommand"):
        yield


def _fit(folder: Path, *options: str) -> tuple[int, str]:
    """What `main` catches stays an exception here."""
    with _in(folder):
        training.run(["fit", "--config", "a.yaml", "--wandb=disabled", "--trainer.default_root_dir=runs", *options])
    return 0, ""


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    """What a configuration names by a relative path is looked for in the folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _configuration(folder: Path) -> tuple[int, str]:
    with _untrained():
        return _fit(folder)


def _checkpoint(folder: Path) -> tuple[int, str]:
    load_network(folder / "a.ckpt")
    AttentionClassifier.load_from_checkpoint(folder / "a.ckpt")
    return 0, ""


def _configurations() -> Files:
    tree = yaml.safe_load(_trained()[0])
    tree["trainer"]["callbacks"] = [{"class_path": "FaithfulnessCallback", "init_args": {"max_examples": 4}}]
    scheduler = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    tree["model"]["init_args"]["lr_scheduler"] = scheduler
    return {"a.yaml": yaml.safe_dump(tree).encode()}


def _heads(folder: Path) -> tuple[int, str]:
    return len(HeadsFile.read(folder / "heads.json").layers), ""


def _heads_file() -> Files:
    model = {"kind": "bert", "layers": 2, "attention_heads": 4, "weights": "abc"}
    found = {"reasons": {"0.1": ["syntactic: nsubj"], "1.0": ["positional: +1"]}}
    return {"heads.json": json.dumps({"layers": [[1], [0, 2]], "model": model, "found": found}).encode()}


@functools.cache
def _index_files() -> Files:
    with tempfile.TemporaryDirectory() as name:
        data = tiny_data(train=12, val=8, test=8)
        NeighbourIndex.build(tiny_module(data).network.eval(), data, Path(name), max_tokens=100)
        return {file.name: file.read_bytes() for file in sorted(Path(name).iterdir())}


def _index(folder: Path) -> tuple[int, str]:
    index = NeighbourIndex.open(folder)
    assert math.isfinite(index.cutoff(0.1))
    index.lexicon  # noqa: B018
    index.lengths(np.arange(len(index)))
    return len(index), ""


WRITTEN = {
    "configuration": Format(_configurations, _configuration, share=0.4),
    "checkpoint": Format(lambda: {"a.ckpt": _trained()[1]}, _checkpoint, share=0.4),
    "checkpoint, fit": Format(
        lambda: {"a.yaml": _trained()[0], "a.ckpt": _trained()[1]},
        lambda folder: _fit(folder, "--ckpt_path=a.ckpt"),
        damaged=".ckpt",
        share=0.2,
    ),
    "heads.json": Format(_heads_file, _heads),
    "index": Format(_index_files, _index),
}

FORMATS = {**TABLES, **CORPORA, **BAGS, **WRITTEN}
