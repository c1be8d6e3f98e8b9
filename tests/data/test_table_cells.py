"""What people and pandas write into tables: labels, evidence, files; see also test_bad_text.py."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl

from lightning_attn.data import TextDataModule, TextProcessor, WordProcessor
from lightning_attn.data.word_processor import word_spans
from lightning_attn.errors import InputError
from tests.helpers.rows import Recorder, trainer
from tests.helpers.text_files import opened, words, write

TEXTS = ["so good", "so bad", "not good", "not bad"]


def labelled(path: Path, labels: list) -> Path:
    return write(path, [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)])


@pytest.mark.parametrize(
    ("ending", "labels", "classes", "target"),
    [
        ("jsonl", [[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1]], "012", [[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1]]),
        ("csv", ["[1, 0]", "[0, 1]", "[1, 1]", "[0, 0]"], "01", [[1, 0], [0, 1], [1, 1], [0, 0]]),
        ("jsonl", [[0], [0, 1], [1], [1]], "01", [[1, 0], [1, 1], [0, 1], [0, 1]]),
        ("jsonl", [["a", "b"], "b", "a", "b"], "ab", [[1, 1], [0, 1], [1, 0], [0, 1]]),
        ("csv", ["['a', 'b']", "['b']", "a", '["b"]'], "ab", [[1, 1], [0, 1], [1, 0], [0, 1]]),
        ("csv", ["0.0", "1.0", "0.0", "1.0"], "01", [0, 1, 0, 1]),
        ("csv", ["0", "1.0", "0.0", "1"], "01", [0, 1, 0, 1]),
        ("csv", ["1.0", "1.5", "1.0", "1.5"], ["1.0", "1.5"], [0, 1, 0, 1]),
        ("csv", ["pos", "neg", "pos ", " neg"], ["neg", "pos"], [1, 0, 1, 0]),
        ("csv", ["1", "--1", "1", "--1"], ["--1", "1"], [1, 0, 1, 0]),
        ("csv", ["01", "1", "01", "1"], ["01", "1"], [0, 1, 0, 1]),
        ("jsonl", ["2019-01-01", "2020-01-01"] * 2, ["2019-01-01", "2020-01-01"], [0, 1, 0, 1]),
        ("jsonl", ["1", 2, "2", 1], "12", [0, 1, 1, 0]),
        ("csv", ["[a", "b]", "[a", "b]"], ["[a", "b]"], [0, 1, 0, 1]),
    ],
)
def test_labels_are_what_was_meant(tmp_path: Path, ending: str, labels: list, classes, target: list) -> None:
    data = opened(labelled(tmp_path / f"a.{ending}", labels))
    assert data.schema.class_names == tuple(classes)
    assert data.dataset("train").labels.tolist() == target
    assert data.schema.multi_label == isinstance(target[0], list)


def test_what_was_read_otherwise_than_written_is_said(tmp_path: Path) -> None:
    assert "2 labels lost the white space" in opened(labelled(tmp_path / "a.csv", ["p", "n", "p ", " n"])).describe()
    notes = opened(labelled(tmp_path / "b.jsonl", [[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1]])).describe()
    assert "lists of 0 and 1, one column per class: 3 classes" in notes
    assert "train: 4 texts (0 2, 1 2, 2 2; 1.5 labels per text)." in notes
    assert "0.0 is read as 0" in opened(labelled(tmp_path / "c.csv", ["0.0", "1.0"] * 2)).describe()


def test_columns_of_classes_can_have_names(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.jsonl", [[1, 0], [0, 1], [1, 1], [0, 1]])
    data = opened(path, class_names={"1": "angry", "0": "sad"})
    assert data.schema.class_names == ("angry", "sad")
    assert data.dataset("train").labels.tolist() == [[0, 1], [1, 0], [1, 1], [1, 0]]


def test_a_class_twice_in_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: the list of labels '\[1, 0, 0\]' names a class twice"):
        opened(labelled(tmp_path / "a.jsonl", [[1, 0], [1, 0, 0], [0], [1]]))


EVIDENCE = [[0, 1], None, [1, 0], [0.5, 0]]


@pytest.mark.parametrize("unknown", ["null", "empty", "missing", "csv", "numpy"])
def test_some_texts_may_be_without_evidence(tmp_path: Path, unknown: str) -> None:
    rows: list[dict] = [
        {"text": text, "label": label, "why": why} for text, label, why in zip(TEXTS, "pnpn", EVIDENCE, strict=True)
    ]
    if unknown == "empty":
        rows[1]["why"] = []
    elif unknown == "missing":
        del rows[1]["why"]
    elif unknown in ("csv", "numpy"):
        for row in rows:
            row["why"] = "" if row["why"] is None else str(row["why"] if unknown == "csv" else np.array(row["why"]))
    data = opened(write(tmp_path / ("a.csv" if unknown in ("csv", "numpy") else "a.jsonl"), rows), evidence="why")
    evidence = data.dataset("train")[range(4)].evidence
    assert evidence is not None
    assert evidence[:, 1:-1].nan_to_num(9).tolist() == [[0, 1], [9, 9], [1, 0], [0.5, 0]]
    assert "train: 3 of 4 texts have evidence." in data.describe()


def test_evidence_of_no_text_is_refused(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label, "why": None} for text, label in zip(TEXTS, "pnpn", strict=True)]
    with pytest.raises(InputError, match=r"line 1: the why is empty"):
        opened(write(tmp_path / "a.jsonl", rows), evidence="why")
    with pytest.raises(InputError, match=r"no column 'reason'; it has text, label, why"):
        opened(tmp_path / "a.jsonl", evidence="reason")


def test_evidence_stays_on_its_word_at_a_double_space(tmp_path: Path) -> None:
    rows = [
        {"text": ["so", "", "very", "good"], "label": "p", "why": [0, 0, 0, 1]},
        {"text": ["bad", "", ""], "label": "n", "why": [1, 0, 0]},
        {"text": ["a", "", "b", "c", "d"], "label": "n", "why": [1, 0, 0.5, 0, 0]},
    ]
    data = opened(write(tmp_path / "a.jsonl", rows), evidence="why")
    batch = data.dataset("train")[[0]]
    assert batch.evidence is not None
    assert dict(zip(words(data, "train", 0), batch.evidence[0, 1:-1].tolist(), strict=True)) == {
        "so": 0,
        "very": 0,
        "good": 1,
    }
    assert data.dataset("train")[[1]].evidence[0, 1:-1].tolist() == [1]  # type: ignore[index]
    assert data.dataset("train")[[2]].evidence[0, 1:-1].tolist() == [1, 0.5, 0, 0]  # type: ignore[index]
    assert data.processor.surface(rows[0]["text"])[1:-1] == ["so", "very", "good"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_evidence_may_be_spans_of_characters(tmp_path: Path, ending: str) -> None:
    spans = [[[3, 8]], None, [{"start": 0, "end": 3}, {"start": 5, "end": 6}], [[0, 2], [4, 5]]]
    texts = ["so (good)!", "so bad.", "not good", "\u597d\u7684\u4eba x y"]
    rows = [
        {"text": text, "label": label, "why": json.dumps(span) if ending == "csv" else span}
        for text, label, span in zip(texts, "pnpn", spans, strict=True)
    ]
    path = write(tmp_path / f"a.{ending}", rows)
    data = opened(path, spans="why")
    expected = [
        ["so", "(*", "good*", ")", "!"],
        ["so?", "bad?", ".?"],
        ["not*", "good*"],
        ["\u597d*", "\u7684*", "\u4eba", "x*", "y"],
    ]
    for row, pieces in enumerate(expected):
        batch = data.dataset("train")[[row]]
        assert batch.evidence is not None
        marks = ["?" if np.isnan(mark) else "*" * int(mark) for mark in batch.evidence[0, 1:-1].tolist()]
        assert [word + mark for word, mark in zip(words(data, "train", row), marks, strict=True)] == pieces
    for wrong, problem in (
        ("[[3, 99]]", r"line 2: the span \[3, 99\] is none of a text of 10 characters"),
        ("oops", "line 2: spans should be pairs of characters"),
        ("[[1, 2, 3]]", "line 2: spans should be pairs of characters"),
    ):
        if ending == "csv":
            rows[0]["why"] = wrong
            with pytest.raises(InputError, match=problem):
                opened(write(path, rows), spans="why")
    with pytest.raises(InputError, match="not both"):
        TextDataModule(path, evidence="why", spans="why")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("\u5473\u4ef7,\u5458ab", ["\u5473", "\u4ef7", ",", "\u5458", "ab"]),  # Chinese
        ("\u30c6\u30ec\u30d3\u30fc\u3092\u898b\u308b", ["\u30c6\u30ec\u30d3\u30fc", "\u3092", "\u898b", "\u308b"]),
        ("\u0e19\u0e35\u0e49\u0e14\u0e35", ["\u0e19\u0e35\u0e49", "\u0e14\u0e35"]),  # Thai, with its marks
        ("\ud55c\uad6d\uc5b4 \ubb38\uc7a5", ["\ud55c\uad6d\uc5b4", "\ubb38\uc7a5"]),  # Korean has spaces
    ],
)
def test_scripts_without_spaces_are_split_into_characters(text: str, pieces: list[str]) -> None:
    assert [text[start:end] for start, end in word_spans(text)] == pieces
    processor = WordProcessor(boundaries=False)
    processor.fit([text])
    assert processor.surface(text) == processor.tokens(processor.encode([text]).ids) == pieces
    old = {name: value for name, value in processor.state().items() if name != "split_scripts"}
    assert TextProcessor.from_state(old).surface(text) == re.findall(r"\w[\w\u0e31-\u0e4e]*|,", text)


def test_unknown_words_are_counted_and_many_are_warned_of(tmp_path: Path) -> None:
    for split, texts in (("train", ["a b", "a c"]), ("val", ["a b", "a x"]), ("test", ["x y", "a b"])):
        write(tmp_path / f"{split}.csv", [{"text": text, "label": text} for text in texts])
    for split in ("val", "test"):
        labels = pd.read_csv(tmp_path / f"{split}.csv")
        labels.assign(label=["a b", "a c"]).to_csv(tmp_path / f"{split}.csv", index=False)
    with pytest.warns(UserWarning, match="50% of the words of test are not in the vocabulary") as caught:
        data = opened(tmp_path)
    assert len([warning for warning in caught if "vocabulary" in str(warning.message)]) == 2  # val with 25 % too
    assert "Unknown words: train 0.0%, val 25.0%, test 50.0%." in data.describe()


@pytest.mark.parametrize("absent", ["-1", "empty", "missing"])
def test_a_test_split_without_labels_is_for_predict_alone(tmp_path: Path, absent: str) -> None:
    labelled(tmp_path / "train.csv", ["0", "1"] * 2)
    labelled(tmp_path / "val.csv", ["0", "1"] * 2)
    frame = pd.read_csv(tmp_path / "val.csv").assign(label={"-1": -1, "empty": None}.get(absent))
    (frame.drop(columns="label") if absent == "missing" else frame).to_csv(tmp_path / "test.csv", index=False)
    data = TextDataModule(tmp_path, batch_size=3)
    module, run = Recorder(), trainer(tmp_path)
    run.fit(module, datamodule=data)
    assert "test: 4 texts without labels, for predict alone." in data.describe()
    predictions = run.predict(module, datamodule=data)
    assert sorted(row for rows in predictions or [] for row in rows) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="test split has no labels, so nothing can be measured"):
        run.test(module, datamodule=data)


def test_a_validation_split_without_labels_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [{"text": f"number {row}", "label": row % 2} for row in range(40)])
    labelled(tmp_path / "val.csv", [-1] * 4)
    data = opened(tmp_path, val_share=0.1)
    assert len(data.dataset("val")) == 4
    assert (data.dataset("val").labels >= 0).all()
    assert "The val split has no labels, so it is left out." in data.describe()
    frame = pd.read_csv(tmp_path / "val.csv")
    frame["label"] = [0, 1, -1, 0]
    frame.to_csv(tmp_path / "val.csv", index=False)
    with pytest.raises(InputError, match=r"unknown label '-1' \(.*val\.csv, line 4\)"):
        opened(tmp_path)


CSV = "text,label\nso good,p\nso bad,n\n"


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("a.csv", ",text,label\n0,so good,p\n1,so bad,n\n", {}),
        ("a.csv", "text,label,\nso good,p,\nso bad,n,\n", {}),
        ("a.csv", "\ntext,label\nso good,p\n\nso bad,n\n", {}),
        ("A.CSV", CSV, {}),
        ("a.tsv", CSV.replace(",", "\t").replace("so bad", '"so bad'), {"quoting": False}),
        ("a.json", '{"text": "so good", "label": "p"}\n{"text": "so bad", "label": "n", "more": {}}\n', {}),
        ("a.json", ' [{"text": "so good", "label": "p"},\n{"text": "so bad", "label": "n"}]', {}),
        ("train.csv", CSV, {"folder": {"._train.csv": "\0\0Mac OS X", "config.json": "{}"}}),
        ("reviews.csv", CSV, {"folder": {"config.json": "{}"}}),
    ],
)
def test_tables_are_read_whoever_wrote_them(tmp_path: Path, name: str, content: str, arguments: dict) -> None:
    (tmp_path / name).write_text(content)
    for other, text in arguments.get("folder", {}).items():
        (tmp_path / other).write_text(text)
    path = tmp_path if "folder" in arguments else tmp_path / name
    data = opened(path, **{key: value for key, value in arguments.items() if key != "folder"})
    assert [words(data, "train", row)[-1] for row in range(2)] == ["good", "bad"]
    assert data.dataset("train").labels.tolist() == [1, 0]


def test_arrays_of_json_in_several_files_are_joined(tmp_path: Path) -> None:
    for name, label in (("train_1.json", "p"), ("train_2.json", "n")):
        (tmp_path / name).write_text(json.dumps([{"text": "so good", "label": label}]))
    assert opened(tmp_path).dataset("train").labels.tolist() == [1, 0]


def test_the_notes_name_the_files_of_a_split_and_the_rows_over_several_lines(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(CSV)
    (tmp_path / "train_old.csv").write_text(CSV.replace("so bad", '"so\nbad"'))
    notes = opened(tmp_path).describe()
    assert "Found train: train is train.csv and train_old.csv." in notes
    assert "train: 1 rows go over several lines, held together by quotes." in notes


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.tsv", 'text\tlabel\n"so good\tp\nso bad\tn\n"not bad\tn\n', "line 2, is malformed.*set quoting to false"),
        ("a.json", '{"data": [1]}', r"a\.json, line 1 has no column 'text'; it has data"),
        ("a.json", '[{"text": "a", "label": "x"}, 3]', r"a\.json, row 2, should be a JSON object"),
        ("a.jsonl", '{"text": "\\ud800", "label": "x"}', r"line 1, has half of a surrogate pair"),
        ("a.jsonl", '{"text": ' + "[" * 100_000, "line 1, is JSON nested too deeply"),
        ("a.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}", "too long a number"),
        ("a.jsonl", '{"text": "a", "label": NaN}', "line 1: the label should be a class name"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=problem) as caught:
        opened(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_parquet_string_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    text = pa.array([b"so good", b"na\xefve"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text, "label": ["p", "n"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet holds a string that is not UTF-8"):
        opened(tmp_path / "a.parquet")


def test_what_a_notebook_has_at_hand_is_read(tmp_path: Path, own_cache: Path) -> None:
    import datasets

    frame = pd.DataFrame({"text": TEXTS, "label": [1, 0, 1, 0], "more": [None] * 4})
    rows = datasets.Dataset.from_pandas(frame)
    for data in (frame, rows, datasets.DatasetDict(train=rows, validation=rows), frame.to_dict("list")):
        module = opened(data)
        assert module.dataset("train").labels.tolist() == [1, 0, 1, 0]
        assert words(module, "train", 3) == ["not", "bad"]
    assert opened({"train": frame, "test": frame}).splits == ["train", "test"]
    entries = len([*own_cache.iterdir()])
    assert len(opened(frame.head(3)).dataset("train")) == 3
    assert len([*own_cache.iterdir()]) == entries + 1  # by content, in the cache
    for wrong, problem in ((3, "not int"), ({"text": ["a"]}, "no column 'label'"), ([1], "not list")):
        with pytest.raises(InputError, match=problem):
            opened(wrong)


def test_a_trainer_says_before_training_what_was_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = TextDataModule(labelled(tmp_path / "train.csv", ["p", "n"] * 2), val_share=0.0, test_share=0.0)
    with caplog.at_level("INFO"):
        pl.Trainer.fit(trainer(tmp_path, max_epochs=1), Recorder(), datamodule=data)
    assert caplog.text.count("train: 4 texts (n 2, p 2).") == 1
