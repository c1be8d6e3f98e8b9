import json
from pathlib import Path

import pandas as pd
import pytest

from lightning_attn.data.table_rows import read_tables
from lightning_attn.data.tables import find_tables, ignored_tables, kind_of, split_of
from lightning_attn.errors import InputError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("dev", "val"),
        ("validation", "val"),
        ("valid", "val"),
        ("reviews_Train", "train"),
        ("test-00000-of-00001", "test"),
        ("contest", None),
        ("trained", None),
        ("imdb.test", "test"),
        ("imdb-test", "test"),
        ("test_1", "test"),
        ("train.test", None),
        ("train_test", None),
        ("reviews", None),
    ],
)
def test_a_name_stands_for_a_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", ".csv"),
        ("a.tsv.xz", ".tsv"),
        ("a.jsonl.gz", ".jsonl"),
        ("a.parquet", ".parquet"),
        ("a.txt", ""),
        ("a.gz", ""),
    ],
)
def test_the_ending_says_the_kind(name: str, kind: str) -> None:
    assert kind_of(Path(name)) == kind


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("x")
    return folder


def test_files_of_a_folder_are_found_by_split(tmp_path: Path) -> None:
    made(tmp_path, "test.csv", "train-1.csv", "train-0.csv", "dev.csv", "README.md", "notes.csv")
    found = find_tables(tmp_path)
    assert {split: [file.name for file in files] for split, files in found.items()} == {
        "train": ["train-0.csv", "train-1.csv"],
        "val": ["dev.csv"],
        "test": ["test.csv"],
    }


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.jsonl", "imdb.test.jsonl"),
        ("imdb.train.jsonl", "imdb.test.jsonl"),
        ("imdb.v1.train.csv.gz", "imdb.v1.test.csv.gz"),
        ("imdb.train.tsv.xz", "test.imdb.tsv"),
        ("train.parquet", "test_1.parquet"),
    ],
)
def test_the_split_may_stand_behind_a_dot(tmp_path: Path, train: str, test: str) -> None:
    made(tmp_path, train, test)
    found = find_tables(tmp_path)
    assert found == {"train": [tmp_path / train], "test": [tmp_path / test]}
    assert ignored_tables(tmp_path, found) == []


def test_tables_of_no_one_split_are_ignored_and_named(tmp_path: Path) -> None:
    made(tmp_path, "train.csv", "train.test.csv", "notes.jsonl.gz", "README.md")
    found = find_tables(tmp_path)
    assert found == {"train": [tmp_path / "train.csv"]}
    assert [table.name for table in ignored_tables(tmp_path, found)] == ["notes.jsonl.gz", "train.test.csv"]
    assert ignored_tables(tmp_path / "train.csv", find_tables(tmp_path / "train.csv")) == []


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_path_is_no_pattern(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    for folder in ("reviews [2024] * {a}?", "reviews 2"):  # the second is what [2024] matches as a pattern
        (tmp_path / folder).mkdir()
    file = tmp_path / "reviews [2024] * {a}?" / f"train[1].{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    else:
        frame.to_csv(file, index=False)

    assert read_tables([file], ["text", "label"], ["text"]).columns == {
        "text": ["a", "b"],
        "label": ["x", "y"],
    }


def test_the_only_file_is_train(tmp_path: Path) -> None:
    made(tmp_path, "reviews.jsonl", "README.md")
    assert find_tables(tmp_path) == find_tables(tmp_path / "reviews.jsonl") == {"train": [tmp_path / "reviews.jsonl"]}


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["README.md"], "holds no .csv, .tsv, .jsonl, .parquet file"),
        (["a.csv", "b.csv"], r"holds a\.csv, b\.csv, none named train, val or test"),
        (["train.csv", "train.jsonl"], r"train\.csv and train\.jsonl for one split"),
    ],
)
def test_an_unclear_folder_is_refused(tmp_path: Path, names: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        find_tables(made(tmp_path, *names))


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.docx is none of"):
        find_tables(made(tmp_path, "a.docx") / "a.docx")
