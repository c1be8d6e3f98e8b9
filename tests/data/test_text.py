import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_attn.data import TextDataModule, WordProcessor
from lightning_attn.errors import InputError
from tests.helpers.text_files import ROWS, opened, words, write


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.xz", "jsonl.xz", "jsonl.gz"])
def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path, ending: str) -> None:
    data = opened(write(tmp_path / f"reviews.{ending}", ROWS))
    expected = WordProcessor()
    expected.fit([row["text"] for row in ROWS])
    assert data.processor.state() == expected.state()
    assert data.schema.class_names == ("neg", "pos")
    batch = data.dataset("train")[range(len(ROWS))]
    assert batch.target.tolist() == [1, 0, 1, 0, 0, 1]
    assert torch.equal(batch.inputs, expected.batch([row["text"] for row in ROWS]).inputs)


def test_nothing_is_written_beside_the_data_or_into_other_caches(
    tmp_path: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    opened(write(tmp_path / "mine" / "reviews.csv.xz", ROWS))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["reviews.csv.xz"]
    assert len(list(own_cache.iterdir())) == 1
    assert "Generating" not in capfd.readouterr().err


def test_vocabulary_comes_from_training_texts_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "test.csv", [{"text": "unheard-of great", "label": "pos"}])
    data = opened(tmp_path)
    assert words(data, "test", 0) == ["<unk>", "great"]


def test_numbers_and_names_of_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"text": "a", "label": label} for label in (10, 2, 2, 10, 1)])
    assert opened(path).schema.class_names == ("1", "2", "10")
    named = opened(path, class_names={"10": "many", "1": "one", "2": "two"})
    assert named.schema.class_names == ("many", "one", "two")
    assert named.dataset("train").labels.tolist() == [0, 2, 2, 0, 1]
    with pytest.raises(InputError, match=r"a\.csv, line 6: unknown label '1'; class_names has '2', '10'"):
        opened(path, class_names={"2": "two", "10": "ten"})
    with pytest.raises(InputError, match="'none' has no training example"):
        opened(path, class_names={"10": "many", "1": "one", "2": "two", "3": "none"})


def test_lists_of_labels_make_several_classes(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": ["y"]}, {"text": "c", "label": ["x"]}]
    data = opened(write(tmp_path / "a.jsonl", rows))
    assert data.schema.multi_label
    assert data.dataset("train")[[0, 1, 2]].target.tolist() == [[1, 1], [0, 1], [1, 0]]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_example_may_be_of_no_class_where_labels_are_lists(tmp_path: Path, ending: str) -> None:
    rows = [{"text": "a", "label": []}, {"text": "b", "label": ["y"]}, {"text": "c", "label": ["x"]}]
    data = opened(write(tmp_path / f"a.{ending}", rows))
    assert data.dataset("train")[[0, 1, 2]].target.tolist() == [[0, 0], [0, 1], [1, 0]]
    with pytest.raises(InputError, match=rf"none\.{ending} has no label in any example"):
        opened(write(tmp_path / f"none.{ending}", [{"text": "a", "label": []}]))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_evidence_has_one_number_a_word(tmp_path: Path, ending: str) -> None:
    marks = [[0, 1], [0.5, None]] if ending == "jsonl" else ["0 1", "0.5 nan"]
    rows = [
        {"text": text, "label": label, "why": mark}
        for text, label, mark in zip(["so good.", "not bad"], "pn", marks, strict=True)
    ]
    path = write(tmp_path / f"a.{ending}", rows)
    batch = opened(path, evidence="why").dataset("train")[[0, 1]]
    assert batch.evidence is not None
    assert batch.evidence[:, 1:-1].nan_to_num(9).tolist() == [[0, 1], [0.5, 9]]
    for wrong, problem in (
        ("0 1 1", "line 3: the text has 2 words, but its evidence has 3"),
        ("0 2", "line 3: evidence must lie between 0 and 1, but there is 2"),
        ("0 x", "line 3: evidence should be one number per word, not '0 x'"),
    ):
        if ending == "csv":
            rows[1]["why"] = wrong
            with pytest.raises(InputError, match=problem):
                opened(write(path, rows), evidence="why")


def test_queries(tmp_path: Path) -> None:
    rows = [{"text": "a b", "label": "y", "asked": "c ?"}, {"text": "a", "label": "n", "asked": "d e f"}]
    data = opened(write(tmp_path / "a.csv", rows), query="asked")
    batch = data.dataset("train")[[0, 1]]
    assert batch.query is not None
    assert batch.query.shape == (2, 5)
    assert data.processor.tokens(batch.query[0, 1:3].tolist()) == ["c", "?"]


def test_lists_of_words_are_kept(tmp_path: Path) -> None:
    rows = [{"text": ["a b", "(c)"], "label": 0}, {"text": ["d"], "label": 1}]
    data = opened(write(tmp_path / "a.jsonl", rows))
    assert words(data, "train", 0) == ["a b", "(c)"]


def test_a_hub_data_set_has_its_own_splits_and_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "fine"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_: datasets.DatasetDict(train=rows, validation=rows, unsupervised=rows)
    )
    data = opened("some/reviews")
    assert data.splits == ["train", "val"]
    assert data.schema.class_names == ("bad", "fine")
    assert data.dataset("val").labels.tolist() == [1, 0]


def test_a_second_run_neither_reads_nor_tokenises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    first = opened(path)

    def never(*_: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(WordProcessor, "encode", never)
    monkeypatch.setattr(TextDataModule, "read", never)
    second = opened(path)
    assert second.describe() == first.describe()
    assert second.export() == first.export()
    assert torch.equal(second.dataset("train")[[0, 2]].inputs, first.dataset("train")[[0, 2]].inputs)
    for changed in ({"max_examples": 2}, {"seed": 1}, {"processor": WordProcessor(lowercase=False)}):
        with pytest.raises(AssertionError, match="tokenised again"):
            opened(path, **changed)
    write(path, ROWS[1:])
    with pytest.raises(AssertionError, match="tokenised again"):
        opened(path)


def test_a_checkpoint_decides_vocabulary_and_classes(tmp_path: Path) -> None:
    first = opened(write(tmp_path / "train.csv", ROWS))
    torch.save(first.export(), tmp_path / "state.pt")
    (tmp_path / "new").mkdir()
    path = write(tmp_path / "new" / "test.csv", [{"text": "great unheard-of", "label": "pos"}])
    data = TextDataModule(tmp_path / "new")
    with pytest.raises(InputError, match="no training split, only test"):
        data.setup()
    data.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert data.schema == first.schema
    data.prepare_data()
    data.setup("test")
    assert data.schema == first.schema
    assert words(data, "test", 0) == ["great", "<unk>"]
    assert data.dataset("test").labels.tolist() == [1]
    with pytest.raises(InputError, match="no val split; they have test"):
        data.dataset("val")
    write(path, [{"text": "a", "label": "odd"}])
    again = TextDataModule(tmp_path / "new")
    again.restore(first.export())
    with pytest.raises(InputError, match="unknown label 'odd'"):
        again.setup()


def test_a_resumed_run_takes_the_cache_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    state = opened(path).export()
    monkeypatch.setattr(TextDataModule, "read", None)
    data = TextDataModule(path, val_share=0.0, test_share=0.0)
    data.restore(json.loads(json.dumps(state)))
    data.setup()
    assert len(data.dataset("train")) == len(ROWS)


def test_word_vectors_line_up_with_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("great 1 2\nelsewhere 3 4\n")
    path = write(tmp_path / "a.csv", ROWS)
    data = opened(path, word_vectors=tmp_path / "v.txt")
    vectors = data.word_vectors()
    assert vectors is not None
    assert vectors.shape == (data.schema.vocabulary_size, 2)
    row = data.processor.state()["vocabulary"].index("great")
    assert vectors[row].tolist() == [1, 2]
    assert int((~vectors.isnan().any(1)).sum()) == 1
    assert opened(path).word_vectors() is None
    with pytest.raises(InputError, match="no file of word vectors at"):
        opened(path, word_vectors=tmp_path / "w.txt")
    subwords = TextDataModule(path, val_share=0.0, test_share=0.0, word_vectors=tmp_path / "v.txt")
    subwords.restore({**data.export(), "processor": hugging_face_state()})
    with pytest.raises(InputError, match="use WordProcessor"):
        subwords.setup()


def hugging_face_state() -> dict:
    from tokenizers import Tokenizer, models

    blank = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).to_str()
    special = {"pad": None, "unk": 0, "mask": None}
    return {
        "type": "HuggingFaceProcessor",
        "name_or_path": "gone",
        "max_length": 9,
        "tokenizer": blank,
        "special": special,
    }


def test_imdb_rows_agree_with_pandas(real_data: Path, tmp_path: Path) -> None:
    frame = pd.read_json(real_data / "imdb" / "test.jsonl.xz", lines=True).iloc[::250]
    with gzip.open(tmp_path / "test.csv.gz", "wt", newline="") as file:
        frame[["text", "label"]].to_csv(file, index=False, quoting=csv.QUOTE_ALL)
    data = opened(tmp_path / "test.csv.gz", processor=WordProcessor(max_length=4000))
    lower = [text.lower() for text in frame["text"]]
    seen = [set(words(data, "train", row)) for row in range(len(frame))]
    assert data.dataset("train").labels.tolist() == frame["label"].tolist()
    for text, found in zip(lower, seen, strict=True):
        plain = {word for word in text.replace("<br />", " ").split() if word.isalpha() and not word.endswith("n't")}
        assert plain <= found | {"cannot"}


def test_counterfactual_pairs_have_the_published_numbers(real_data: Path) -> None:
    folder = real_data / "counterfactual_nli" / "original"
    data = opened(folder, text="sentence1", query="sentence2", label="gold_label")
    assert [len(data.dataset(split)) for split in data.splits] == [1666, 200, 400]
    frame = pd.read_csv(folder / "dev.tsv.xz", sep="\t")
    counts = Counter(frame["gold_label"])
    assert np.bincount(data.dataset("val").labels).tolist() == [counts[name] for name in data.schema.class_names]
