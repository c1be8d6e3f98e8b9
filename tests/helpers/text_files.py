"""Files of texts and labels, and data modules that read them."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_attn.data import TextDataModule

ROWS = [
    {"text": 'He said "great", twice', "label": "pos"},
    {"text": "NA", "label": "neg"},
    {"text": "tab\tand\nline break", "label": "pos"},
    {"text": "null", "label": "neg"},
    {"text": "2020-01-01", "label": "neg"},
    {"text": "caf\u00e9\u2028\u00a0x", "label": "pos"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    kind = path.name.removesuffix(".gz").removesuffix(".xz").split(".")[-1]
    frame = pd.DataFrame(rows)
    if kind == "parquet":
        frame.to_parquet(path)
        return path
    if kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = frame.to_csv(index=False, sep="\t" if kind == "tsv" else ",")
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text.encode()))
    return path


def opened(path: Path | str, **arguments: Any) -> TextDataModule:
    data = TextDataModule(path, **{"val_share": 0.0, "test_share": 0.0, **arguments})
    data.prepare_data()
    data.setup()
    return data


def words(data: TextDataModule, split: str, row: int) -> list[str]:
    return data.processor.tokens(data.dataset(split)[row].inputs[0, 1:-1].tolist())
