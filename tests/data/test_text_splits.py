"""How `TextDataModule` comes to its splits; the rest of it is in test_text.py."""

from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import TextDataModule
from lightning_attn.errors import InputError
from tests.helpers.text_files import ROWS, opened, words, write


def test_splits_are_found_by_file_name(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS), ("dev", ROWS[:2]), ("test", ROWS[:3])):
        write(tmp_path / f"{name}.jsonl", rows)
    data = opened(tmp_path)
    assert [len(data.dataset(split)) for split in data.splits] == [6, 2, 3]
    assert "Found train, val, test" in data.describe()


def test_notes_do_not_say_where_the_data_were_when_they_were_cached(tmp_path: Path, own_cache: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "train.csv", ROWS)
    notes = [opened(tmp_path / folder).describe() for folder in ("first", "second")]
    assert notes[0] == notes[1]
    assert "first" not in notes[0]
    assert len(list(own_cache.iterdir())) == 1


def test_ignored_tables_are_said_as_they_are_now(tmp_path: Path) -> None:
    write(tmp_path / "imdb.train.jsonl", ROWS)
    write(tmp_path / "imdb.test.jsonl", ROWS[:2])
    data = opened(tmp_path)
    assert [len(data.dataset(split)) for split in data.splits] == [6, 2]
    assert "Ignored" not in data.describe()
    write(tmp_path / "more.jsonl", ROWS)
    data = opened(tmp_path)
    assert [len(data.dataset(split)) for split in data.splits] == [6, 2]
    assert "Ignored more.jsonl" in data.describe()


def test_a_file_alone_and_its_folder_are_different_entries(tmp_path: Path) -> None:
    state = opened(write(tmp_path / "test.csv", ROWS)).export()  # given alone, it is the training split
    data = TextDataModule(tmp_path, val_share=0.0, test_share=0.0)
    data.restore(state)
    data.setup()
    assert data.splits == ["test"]


def test_splits_are_found_in_a_column(tmp_path: Path) -> None:
    rows = [
        {**row, "part": part}
        for row, part in zip(ROWS, ["train", "dev", "train", "train", "test", "train"], strict=True)
    ]
    data = opened(write(tmp_path / "all.csv", rows), split="part")
    assert [len(data.dataset(split)) for split in data.splits] == [4, 1, 1]
    assert words(data, "val", 0) == ["<unk>"]
    rows[2]["part"] = "other"
    with pytest.raises(InputError, match=r"all\.csv, line 4: the column 'part' holds 'other'"):
        opened(write(tmp_path / "all.csv", rows), split="part")


def test_a_missing_split_is_carved_stratified_and_said(tmp_path: Path) -> None:
    rows = [{"text": f"number {row}", "label": "abbb"[row % 4]} for row in range(200)]
    path = write(tmp_path / "all.jsonl", rows)
    data = opened(path, val_share=0.1, test_share=0.2)
    sizes = {split: len(data.dataset(split)) for split in data.splits}
    assert sizes == {"train": 140, "val": 20, "test": 40}
    assert [np.bincount(data.dataset(split).labels).tolist() for split in data.splits] == [[35, 105], [5, 15], [10, 30]]
    assert "No val split was found: 20 of 200 training examples, by seed 0." in data.describe()
    again = opened(path, val_share=0.1, test_share=0.2, cache_dir=tmp_path / "other")
    assert again.dataset("val").ids.tolist() == data.dataset("val").ids.tolist()
    other = opened(path, val_share=0.1, test_share=0.2, seed=1)
    assert {words(other, "train", row)[1] for row in range(140)} != {words(data, "train", row)[1] for row in range(140)}
    assert len(opened(path, max_examples=50).dataset("train")) == 50


def test_texts_that_repeat_are_not_carved_apart(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "a.csv", ROWS[:2] * 30), val_share=0.1)
    assert data.splits == ["train"]
    assert "No val split: the 60 training examples are 2 texts over and over" in data.describe()


def test_max_examples_keeps_the_class_at_the_end_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", [{"text": f"number {row}", "label": "b" if row == 19 else "a"} for row in range(20)]
    )
    for seed in range(5):
        assert opened(path, max_examples=2, seed=seed).dataset("train").labels.tolist() == [0, 1]
