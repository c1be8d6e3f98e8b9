import csv
import gzip
import io
import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from lightning_attn.data import NLIDataModule
from lightning_attn.errors import InputError

ROWS = [
    ("A man sleeps.", "A person rests.", "entailment"),
    ("A man sleeps.", "A man runs.", "contradiction"),
    ('A "big" dog, wet', "The dog is cold.", "neutral"),
    ("Two girls sing.", "Girls sing.", "entailment"),
]
NUMBERS = {"contradiction": "0", "neutral": "1", "entailment": "2"}


def write(path: Path, rows, columns=("sentence1", "sentence2", "gold_label")) -> Path:
    text = io.StringIO()
    if ".jsonl" in path.name:
        text.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    else:
        writer = csv.writer(text, delimiter="\t" if ".tsv" in path.name else ",", lineterminator="\n")
        writer.writerows([columns, *rows])
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text.getvalue().encode()))
    return path


def write_described(path: Path, rows, splits=None) -> Path:
    """The csv of SNLI in the layout of rationale work: ``label`` is a number there, ``label_id`` its name."""
    splits = splits or ["dev"] * len(rows)
    full = [(p, split, NUMBERS.get(y, y), y, h) for (p, h, y), split in zip(rows, splits, strict=True)]
    return write(path, full, ("document", "exp_split", "label", "label_id", "query"))


def opened(train: Path, **arguments) -> NLIDataModule:
    data = NLIDataModule(train, **arguments)
    data.prepare_data()
    data.setup()
    return data


def shown(data: NLIDataModule, split: str) -> list[tuple[str, str, str]]:
    batch = data.dataset(split)[range(len(data.dataset(split)))]
    read = [
        [" ".join(data.processor.tokens(ids[valid].tolist())[1:-1]) for ids, valid in zip(*part, strict=True)]
        for part in ((batch.inputs, batch.valid), (batch.query, batch.query_valid))
    ]
    return [(*pair, data.schema.class_names[y]) for *pair, y in zip(*read, batch.target.tolist(), strict=True)]


EXPECTED = [
    ("a man sleeps .", "a person rests .", "entailment"),
    ("a man sleeps .", "a man runs .", "contradiction"),
    ('a " big " dog , wet', "the dog is cold .", "neutral"),
    ("two girls sing .", "girls sing .", "entailment"),
]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "t.tsv.gz", "t.csv.xz", "t.jsonl.gz"])
def test_every_kind_of_file_is_read(tmp_path: Path, name: str) -> None:
    data = opened(write(tmp_path / name, ROWS))
    assert shown(data, "train") == EXPECTED
    assert data.schema.class_names == ("contradiction", "entailment", "neutral")
    assert data.schema.query_vocabulary_size == data.schema.vocabulary_size
    assert data.splits == ["train"]


def test_each_split_may_have_a_layout_of_its_own(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", ROWS)
    dev = write_described(tmp_path / "b.csv", ROWS[:3])
    test = write(tmp_path / "c.jsonl", [(p, h, y) for p, h, y in ROWS[1:]], ("document", "query", "label"))
    data = opened(train, val=dev, test=test)
    assert shown(data, "val") == EXPECTED[:3]
    assert shown(data, "test") == EXPECTED[1:]


def test_the_vocabulary_has_the_words_of_both_sides_of_train_alone(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", ROWS)
    data = opened(train, val=write(tmp_path / "b.tsv", [("A zebra sleeps.", "Zebras rest.", "neutral")]))
    assert {"sleeps", "rests"} <= set(data.processor.state()["vocabulary"])
    assert shown(data, "val") == [("a <unk> sleeps .", "<unk> <unk> .", "neutral")]


def test_undecided_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [ROWS[0], (*ROWS[1][:2], "-"), *ROWS[1:], (*ROWS[2][:2], "-")])
    data = opened(train)
    assert shown(data, "train") == EXPECTED
    assert "train: 2 of 6 pairs are left out: their label is '-'." in data.describe()


def test_a_file_of_all_splits_gives_the_rows_of_each(tmp_path: Path) -> None:
    names = ["train", "train", "train", "train", "dev", "dev", "test"]
    both = write_described(tmp_path / "all.csv", [*ROWS, *ROWS[2:], ROWS[0]], names)
    data = opened(both, val=both, test=both)
    assert [shown(data, split) for split in data.splits] == [EXPECTED, EXPECTED[2:], EXPECTED[:1]]


def test_a_file_of_one_split_may_serve_as_another(tmp_path: Path) -> None:
    assert len(opened(write_described(tmp_path / "dev.csv", ROWS)).dataset("train")) == 4


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (("sentence1", "other", "gold_label"), "premises 'sentence1', but no column 'sentence2' for the hypotheses"),
        (("document", "other", "label_id"), "premises 'document', but no column 'query' for the hypotheses"),
        (("sentence1", "sentence2", "label"), "no column 'gold_label' for the labels; it has sentence1"),
        (("a", "b", "c"), r"has the columns a, b, c; .* sentence1, sentence2, gold_label or document, query, label_id"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_missing_column_is_named(tmp_path: Path, name: str, columns, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        opened(write(tmp_path / name, ROWS, columns))
    assert name in str(caught.value)


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "a.tsv", ROWS)
    with pytest.raises(InputError, match=r"no file of val pairs at .*missing\.tsv"):
        opened(good, val=tmp_path / "missing.tsv")
    with pytest.raises(InputError, match=r"The val split has the unknown label 'maybe' \(.*b\.tsv, line 3\)"):
        opened(good, val=write(tmp_path / "b.tsv", [ROWS[0], (*ROWS[0][:2], "maybe")]))
    with pytest.raises(InputError, match=r"c\.csv: the column 'label' holds numbers"):
        opened(write(tmp_path / "c.csv", [("a", "b", 1), ("c", "d", 0)], ("document", "query", "label")))
    with pytest.raises(InputError, match=r"d\.tsv has no train pair with a label other than '-'"):
        opened(write(tmp_path / "d.tsv", [("a", "b", "-")]))
    with pytest.raises(InputError, match=r"e\.csv has no test pairs: its column 'exp_split' says dev, train"):
        opened(good, test=write_described(tmp_path / "e.csv", ROWS, ["train", "dev", "dev", "dev"]))
    with pytest.raises(InputError, match=r"f\.tsv, line 3: the sentence2 is empty"):
        opened(write(tmp_path / "f.tsv", [ROWS[0], ("a", " ", "neutral")]))
    (tmp_path / "g.jsonl").write_text("{oops\n")
    with pytest.raises(InputError, match=r"g\.jsonl, line 1, is not JSON"):
        opened(tmp_path / "g.jsonl")
    (tmp_path / "h.parquet").write_text("x")
    with pytest.raises(InputError, match=r"h\.parquet is none of \.csv, \.tsv, \.jsonl"):
        opened(tmp_path / "h.parquet")
    (tmp_path / "i.csv").touch()
    with pytest.raises(InputError, match=r"i\.csv is empty"):
        opened(tmp_path / "i.csv")


def plain(path: Path, columns: tuple[str, str, str], separator: str) -> list[tuple[str, str, str]]:
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        return [tuple(row[name] for name in columns) for row in csv.DictReader(file, delimiter=separator)]


def test_the_public_pairs_have_the_described_numbers(real_data: Path) -> None:
    """Counts of the data's own description, and every pair as a plain reader reads it."""
    train = real_data / "counterfactual_nli" / "all_combined" / "train.tsv.xz"
    dev, test = (real_data / "snli" / f"{name}.csv.xz" for name in ("dev", "test"))
    data = opened(train, val=dev, test=test)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [8330, 9842, 9823]
    names = data.schema.class_names
    for split, counts in (("val", (3278, 3235, 3329)), ("test", (3236, 3219, 3368))):
        found = Counter(names[label] for label in data.dataset(split).labels.tolist())
        assert tuple(found[name] for name in ("contradiction", "neutral", "entailment")) == counts
    for split, path, columns, separator in (
        ("train", train, ("sentence1", "sentence2", "gold_label"), "\t"),
        ("val", dev, ("document", "query", "label_id"), ","),
    ):
        expected = plain(path, columns, separator)
        encoded = [data.processor.encode([row[side] for row in expected]) for side in (0, 1)]
        part = data.dataset(split)
        assert part.ids.tolist() == encoded[0].ids.tolist()
        assert part.query_ids.tolist() == encoded[1].ids.tolist()
        assert [names[label] for label in part.labels.tolist()] == [row[2] for row in expected]


@pytest.mark.parametrize(("part", "rows"), [("original", 1666), ("revised_premise", 3332), ("revised_combined", 6664)])
def test_every_part_of_the_counterfactual_pairs_can_be_read(real_data: Path, part: str, rows: int) -> None:
    assert len(opened(real_data / "counterfactual_nli" / part / "train.tsv.xz").dataset("train")) == rows


def test_a_cache_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache-file").touch()
    with pytest.raises(InputError, match=r"cache folder .*cache-file cannot be written.*set cache_dir"):
        opened(write(tmp_path / "a.csv", ROWS), cache_dir=tmp_path / "cache-file")
