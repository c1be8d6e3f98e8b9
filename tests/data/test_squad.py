"""The SQuAD reader: windows, targets by offsets, splits by article, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lightning_attn.data import QuestionProcessor, SQuADDataModule, TextProcessor, read_questions
from lightning_attn.data.questions import Question
from lightning_attn.data.windows import WindowDataset
from lightning_attn.errors import InputError
from tests.helpers.tiny_models import save_tokenizer

CONTEXT = "The old  red bridge crosses the wide river, near the mill (built 1801) and the small church of the town."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, [CONTEXT.lower(), "what crosses where when", CONTEXT], 200)
    return folder


def asked(key: str, question: str, *answers: str, context: str = CONTEXT) -> dict[str, Any]:
    found = [{"text": answer, "answer_start": context.index(answer)} for answer in answers]
    return {"id": key, "question": question, "answers": found}


def write(path: Path, *qas: dict[str, Any], articles: int = 1) -> Path:
    data = [
        {"paragraphs": [{"context": CONTEXT, "qas": [{**one, "id": f"{n}-{one['id']}"} for one in qas]}]}
        for n in range(articles)
    ]
    path.write_text(json.dumps({"version": "1.1", "data": data}))
    return path


QAS = (
    asked("a", "What crosses the river?", "old  red bridge"),
    asked("b", "When?", "1801"),
    asked("c", "Where?", "town", "small church of the town"),
    asked("d", "What?"),
)


def windows(folder: Path, path: Path, longest: int = 64, stride: int = 4) -> WindowDataset:
    processor = QuestionProcessor(str(folder), longest, stride)
    processor.fit([])
    return processor.windows(read_questions(path))


@pytest.mark.parametrize(("longest", "stride"), [(64, 4), (20, 4), (16, 0), (20, 9)])
def test_windows_are_those_of_hugging_face(folder: Path, tmp_path: Path, longest: int, stride: int) -> None:
    path = write(tmp_path / "a.json", *QAS)
    found = windows(folder, path, longest, stride)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    questions = read_questions(path)
    row = 0
    for number, question in enumerate(questions):
        expected = tokenizer(
            question.text,
            question.context,
            truncation="only_second",
            max_length=longest,
            stride=stride,
            return_overflowing_tokens=True,
            return_token_type_ids=True,
        )
        for ids, types in zip(expected["input_ids"], expected["token_type_ids"], strict=True):
            part = slice(found.offsets[row], found.offsets[row + 1])
            assert found.ids[part].tolist() == ids
            assert found.segments is not None
            assert found.segments[part].tolist() == types
            assert found.owner[row] == number
            row += 1
    assert row == len(found)
    assert found.several == (0 if longest == 64 else 4)


@pytest.mark.parametrize("longest", [64, 20, 17])
def test_targets_give_the_answer_back_and_absence_the_first_position(
    folder: Path, tmp_path: Path, longest: int
) -> None:
    found = windows(folder, write(tmp_path / "a.json", *QAS), longest, 5)
    seen = set()
    for row in range(len(found)):
        question, target = found.questions[found.owner[row]], found.labels[row]
        part = found.spans[found.offsets[row] : found.offsets[row + 1]]
        own = part[part[:, 0] >= 0]
        inside = question.answers and own[0, 0] <= question.answers[0][0] and own[-1, 1] >= question.answers[0][1]
        assert (target[1] > 0) == bool(inside)
        batch = found[row]
        assert batch.evidence is not None
        marked = (batch.evidence[0] == 1).nonzero().flatten().tolist()
        if inside:
            ((first, end),) = found.characters(np.array([row]), target[None])
            assert question.context[first:end] == question.texts[0]
            assert marked == list(range(target[0], target[1] + 1))
            seen.add(question.key)
        else:
            assert target.tolist() == [0, 0]
            assert not marked
        assert (batch.evidence[0].isnan()).tolist() == (part[:, 0] < 0).tolist()
    assert seen == {"0-a", "0-b", "0-c"}


def test_of_each_question_the_window_with_most_around_the_answer_is_chosen(folder: Path, tmp_path: Path) -> None:
    found = windows(folder, write(tmp_path / "a.json", *QAS), 20, 10)
    for number in range(4):
        rows = np.flatnonzero(found.owner == number)
        assert found.chosen[rows].sum() == 1
        around = []
        for row in rows:
            own = np.flatnonzero(found.spans[found.offsets[row] : found.offsets[row + 1], 0] >= 0)
            first, last = found.labels[row]
            around.append(min(first - own[0], own[-1] - last) if last > 0 else -1)
        assert found.chosen[rows][int(np.argmax(around))]
        assert len(rows) > 1


def test_splits_are_of_whole_articles_and_counted(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", *QAS, articles=10)
    data = SQuADDataModule(path, QuestionProcessor(str(folder), 20, 4), val_share=0.2, test_share=0.1)
    data.setup()
    groups = [{question.group for question in data.dataset(split).questions} for split in ("train", "val", "test")]
    assert [len(group) for group in groups] == [7, 2, 1]
    assert set.union(*groups) == set(range(10))
    assert "No val file: 2 of 10 articles, by seed 0." in data.describe()
    count = len(data.dataset("val"))
    assert f"val: 8 questions (2 without an answer) in {count} windows; the contexts of 8 are longer" in data.describe()
    assert data.schema.spans
    processor = TextProcessor.from_state(json.loads(json.dumps(data.export()["processor"])))
    assert isinstance(processor, QuestionProcessor)
    again = processor.windows(data.dataset("val").questions)
    assert again.ids.tolist() == data.dataset("val").ids.tolist()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{oops", r"a\.json, line 1, is not JSON"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"a\.json is not in the format of SQuAD \(there is no 'context'"),
        ("[]", r"a\.json is not in the format of SQuAD"),
        ('{"data": []}', r"a\.json holds no question"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=problem):
        read_questions(tmp_path / "a.json")


def test_wrong_questions_are_named(folder: Path, tmp_path: Path) -> None:
    moved = asked("m", "What?", "1801")
    moved["answers"][0]["answer_start"] += 1
    with pytest.raises(InputError, match=r"question 0-m: the answer '1801' does not stand at answer_start"):
        read_questions(write(tmp_path / "a.json", moved))
    with pytest.raises(InputError, match=r"question 0-a: the id stands there twice"):
        read_questions(write(tmp_path / "a.json", QAS[0], QAS[0]))
    with pytest.raises(InputError, match=r"question 0-e: the question or its context is empty"):
        read_questions(write(tmp_path / "a.json", asked("e", " ")))
    empty = {**asked("e", "What?"), "answers": [{"text": "", "answer_start": 0}]}
    with pytest.raises(InputError, match=r"question 0-e: an answer is empty"):
        read_questions(write(tmp_path / "a.json", empty))
    with pytest.raises(InputError, match=r"question 0-a: its \d+ tokens leave too little of max_length 12 for windows"):
        windows(folder, write(tmp_path / "a.json", *QAS), 12, 6)
    with pytest.raises(InputError, match="no file of train questions"):
        SQuADDataModule(tmp_path / "none.json", QuestionProcessor(str(folder))).setup()
    with pytest.raises(InputError, match=r"1 articles are too few to carve 0\.1"):
        SQuADDataModule(write(tmp_path / "a.json", *QAS), QuestionProcessor(str(folder))).setup()


def test_the_public_questions_are_all_found_back(real_data: Path, folder: Path) -> None:
    questions = read_questions(real_data / "squad_xquad_en" / "xquad.en.json")
    assert len(questions) == 1190
    assert len({question.group for question in questions}) == 48
    assert all(len(question.answers) == 1 for question in questions)


def test_windows_are_tokenised_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.json", *QAS)
    made: list[int] = []
    tokenise = QuestionProcessor.window_arrays

    def counted(self: QuestionProcessor, questions: list[Question]) -> dict[str, Any]:
        made.append(len(questions))
        return tokenise(self, questions)

    monkeypatch.setattr(QuestionProcessor, "window_arrays", counted)

    def opened(stride: int = 4, **arguments: Any) -> SQuADDataModule:
        processor = QuestionProcessor(str(folder), 20, stride)
        data = SQuADDataModule(path, processor, path, path, cache_dir=tmp_path / "cache", **arguments)
        data.prepare_data()
        data.setup()
        return data

    first, second = opened(), opened()
    assert made == [4, 4, 4]
    for name in ("inputs", "valid", "special", "target", "segments"):
        rows = range(len(first.dataset("val")))
        assert torch.equal(getattr(first.dataset("val")[rows], name), getattr(second.dataset("val")[rows], name))
    assert first.describe() == second.describe() != ""
    opened(stride=5)
    assert len(made) == 6
    restored = SQuADDataModule(path, QuestionProcessor(str(folder), 30, 9), path, path, cache_dir=tmp_path / "cache")
    restored.restore(first.export())
    restored.setup()
    assert len(made) == 9  # other settings, but the tokenizer of the checkpoint
    assert len(restored.dataset("val")) == len(first.dataset("val"))
    path.write_text(path.read_text().replace("When?", "When was it?"))
    opened()
    assert len(made) == 12
