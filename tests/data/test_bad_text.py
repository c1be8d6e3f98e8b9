"""What `TextDataModule` says to bad input; its good behaviour is in test_text.py."""

from pathlib import Path

import pytest

from lightning_attn.data import TextDataModule
from lightning_attn.errors import InputError
from tests.helpers.text_files import ROWS, opened, write

GOOD = '{"text": "a", "label": "x"}\n'


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", GOOD + "{oops\n", r"a\.jsonl, line 2, is not JSON \(.* at column 2\)"),
        ("a.jsonl", GOOD + "\n[1]\n", r"a\.jsonl, line 3, should be a JSON object"),
        ("a.jsonl", GOOD + '{"text": "b"}\n', r"line 2 has no column 'label'; it has text"),
        ("a.jsonl", GOOD + '{"text": " ", "label": "x"}\n', r"line 2: the text is empty"),
        ("a.jsonl", GOOD + '{"text": "b", "label": null}\n', r"line 2: the label is empty"),
        ("a.jsonl", GOOD + '{"text": "<br />", "label": "y"}\n', r"line 2: the text is empty"),
        ("a.jsonl", GOOD + '{"text": {"x": 1}, "label": "y"}\n', r"line 2: the text is a JSON object"),
        ("a.jsonl", '{"text": "b", "label": 0.5}\n' + GOOD.replace('"x"', "1"), r"line 1: the label should be a class"),
        ("a.jsonl", GOOD + GOOD, r"has the one label 'x' only"),
        ("a.jsonl", "", r"a\.jsonl is empty"),
        ("a.jsonl", "\n\n", r"a\.jsonl has no rows"),
        ("a.csv", "text,label\na,x\nb\n", r"a\.csv, line 3, has 1 fields, but the header has 2"),
        ("a.csv", 'text,label\n"a\nb",x\nc,d,e\n', r"a\.csv, line 4, has 3 fields"),
        ("a.csv", 'text,label\na,x\n"b,y\nc,z\n', r"a\.csv, line 3, is malformed"),
        ("a.csv", "text,class\na,x\n", r"a\.csv has no column 'label'; it has text, class"),
        ("a.csv", "text,label\n", r"a\.csv has no rows below its header"),
        ("a.csv", "text,label\na,x\n,y\n", r"a\.csv, line 3: the text is empty"),
        ("a.csv", b"text,label\na,x\nna\xefve,y\n", r"a\.csv, line 3, is not UTF-8"),
        ("a.tsv", "text\tlabel\na\tx\nb\n", r"a\.tsv, line 3, has 1 fields"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet cannot be read as \.parquet"),
        ("a.csv.gz", b"text,label\n", r"a\.csv\.gz is damaged"),
    ],
)
def test_bad_input_is_named_in_one_sentence(tmp_path: Path, name: str, content: str | bytes, problem: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=problem) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_an_empty_parquet_text_is_named_by_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"text": "a", "label": "x"}, {"text": "", "label": "y"}])
    with pytest.raises(InputError, match=r"a\.parquet, row 2: the text is empty"):
        opened(path)
    path = write(tmp_path / "a.parquet", [{"text": "a", "label": "x"}, {"text": None, "label": "y"}])
    with pytest.raises(InputError, match=r"a\.parquet, row 2: the text should be a text"):
        opened(path)


def test_an_unknown_label_in_validation_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "valid.csv", [ROWS[0], {"text": "a", "label": "neutral"}])
    with pytest.raises(
        InputError, match=r"The val split has the unknown label 'neutral' \(.*valid\.csv, line 3\).*'neg', 'pos'"
    ):
        opened(tmp_path)


def test_missing_paths_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no", "./no", "data/no.csv", "~/no/such"):
        with pytest.raises(InputError, match="There is no file or folder"):
            opened(path)


def test_a_hub_name_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError, match=r"some/reviews is no file or folder, .*ConnectionError: no route\)"):
        opened("some/reviews")


def test_impossible_shares_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add up to below 1"):
        TextDataModule(tmp_path, val_share=0.6, test_share=0.4)
    with pytest.raises(InputError, match=r"too few to carve 0\.1"):
        opened(write(tmp_path / "a.csv", ROWS[:2]), val_share=0.1)


def test_empty_lists_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: the text is empty"):
        opened(write(tmp_path / "a.jsonl", [{"text": ["a"], "label": ["x"]}, {"text": [], "label": ["y"]}]))


def test_a_list_of_labels_where_training_has_single_ones_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}])
    write(tmp_path / "val.jsonl", [{"text": "a", "label": ["good"]}])
    with pytest.raises(InputError, match=r"val split has the list of labels \['good'\] \(.*val\.jsonl, line 1\)"):
        opened(tmp_path)


def test_a_cache_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache-file").touch()
    with pytest.raises(InputError, match=r"cache folder .*cache-file cannot be written.*set cache_dir"):
        opened(write(tmp_path / "a.csv", ROWS), cache_dir=tmp_path / "cache-file")
