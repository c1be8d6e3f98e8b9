import json
from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import ERASERDataModule, WordProcessor
from lightning_attn.errors import InputError


def span(start: int, end: int, doc: str = "a.txt") -> dict:
    return {"docid": doc, "start_token": start, "end_token": end}


def row(label: str = "POS", *spans: dict, doc: str = "a.txt", **more) -> dict:
    return {"annotation_id": doc, "classification": label, "evidences": [[part] for part in spans], **more}


ROWS = [row("POS", span(1, 3), span(4, 5)), row("NEG", doc="b.txt", query="Is it?")]


def folder(path: Path, **files) -> Path:
    (path / "docs").mkdir()
    (path / "docs" / "a.txt").write_text("It is\ngood , really .\n")
    (path / "docs" / "b.txt").write_text("Not for me .\n")
    for split in ("train", "val", "test"):
        rows = files.get(split, ROWS)
        (path / f"{split}.jsonl").write_text(
            "".join(r + "\n" if isinstance(r, str) else json.dumps(r) + "\n" for r in rows)
        )
    return path


def opened(path: Path, **arguments) -> ERASERDataModule:
    data = ERASERDataModule(path, **arguments)
    data.prepare_data()
    data.setup()
    return data


def test_spans_become_evidence(tmp_path: Path) -> None:
    data = opened(folder(tmp_path))
    batch = data.dataset("val")[[0, 1]]
    assert data.schema.class_names == ("NEG", "POS")
    assert batch.target.tolist() == [1, 0]
    assert data.processor.tokens(batch.inputs[0].tolist()) == ["<s>", "it", "is", "good", ",", "really", ".", "</s>"]
    assert batch.evidence is not None
    assert batch.evidence[0, 1:-1].tolist() == [0, 1, 1, 0, 1, 0]
    assert batch.evidence[1].isnan().all()
    assert batch.query is None


def test_queries_may_be_read(tmp_path: Path) -> None:
    rows = [{**each, "query": "Is it ?"} for each in ROWS]
    data = opened(folder(tmp_path, train=rows, val=rows, test=rows), query=True)
    batch = data.dataset("val")[[0]]
    assert batch.query is not None
    assert data.processor.tokens(batch.query[0].tolist()) == ["<s>", "is", "it", "?", "</s>"]
    assert data.schema.query_vocabulary_size == data.schema.vocabulary_size


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row("POS", span(1, 2, doc="c.txt")), "names the document 'c.txt', but there is no file"),
        (row("POS", span(4, 9)), "evidence from token 4 to 9, but the document has 6 tokens"),
        (row("POS", span(3, 3)), "evidence from token 3 to 3"),
        (row("POS", span(0, 1), span(0, 1, doc="b.txt")), "takes 2 documents"),
        ({"annotation_id": "a.txt", "classification": "POS"}, "is no annotation of the ERASER layout .*evidences"),
        ("{oops", "is no annotation of the ERASER layout"),
        ("[]", "is no annotation of the ERASER layout"),
        (row("MAYBE"), "The val split has the unknown label 'MAYBE'"),
    ],
)
def test_a_bad_annotation_is_named_with_its_line(tmp_path: Path, bad, problem: str) -> None:
    data = ERASERDataModule(folder(tmp_path, val=[ROWS[0], bad]))
    with pytest.raises(InputError, match=problem) as caught:
        data.prepare_data()
    assert "line 2" in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of train\.jsonl"):
        ERASERDataModule(tmp_path).prepare_data()
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(InputError, match=r"no folder .*docs"):
        ERASERDataModule(tmp_path).prepare_data()


def test_long_documents_are_cut_and_counted(tmp_path: Path) -> None:
    data = opened(folder(tmp_path), processor=WordProcessor(max_length=5))
    assert "train: 2 of 2 texts are longer than max_length 5 and lose their end." in data.describe()
    batch = data.dataset("train")[[0]]
    assert batch.evidence is not None
    assert batch.evidence[0, 1:-1].tolist() == [0, 1, 1]


def test_the_movies_have_the_published_numbers(real_data: Path) -> None:
    data = opened(real_data / "eraser_movies", processor=WordProcessor(max_length=5000))
    share = {}
    for split, count in (("train", 1600), ("val", 200), ("test", 199)):
        part = data.dataset(split)
        assert len(part) == count
        assert part.evidence is not None
        share[split] = (part.evidence == 1).sum() / (~part.special).sum()
    assert [round(float(value), 3) for value in share.values()] == [0.086, 0.065, 0.283]
    assert np.bincount(data.dataset("test").labels).tolist() == [100, 99]


def test_the_words_of_each_movie_span_are_those_it_quotes(real_data: Path) -> None:
    data = opened(real_data / "eraser_movies", processor=WordProcessor(max_length=5000))
    with (real_data / "eraser_movies" / "test.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    part = data.dataset("test")
    vocabulary = {word: place for place, word in enumerate(data.processor.state()["vocabulary"])}
    for number, each in enumerate(rows[:40]):
        batch = part[[number]]
        for group in each["evidences"]:
            for quoted in group:
                inside = slice(quoted["start_token"] + 1, quoted["end_token"] + 1)  # <s> stands first
                expected = [vocabulary.get(word.lower(), 1) for word in quoted["text"].split()]
                assert batch.inputs[0, inside].tolist() == expected
                assert (batch.evidence[0, inside] == 1).all()
