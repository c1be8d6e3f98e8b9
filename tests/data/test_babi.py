import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import BabiDataModule, WordProcessor
from lightning_attn.errors import InputError

STORY = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 John moved to the {place}.
5 Where is John? \t{place}\t4
"""
PLACES = ("garden", "kitchen", "office", "attic", "hallway")
TRAIN = "".join(STORY.replace("John", name).format(place=place) for name in ("John", "Ann") for place in PLACES)
TEST = STORY.format(place="garden")


def folder(path: Path, train: str = TRAIN, test: str = TEST, task: int = 1) -> Path:
    (path / f"qa{task}_single-supporting-fact_train.txt").write_text(train)
    (path / f"qa{task}_single-supporting-fact_test.txt").write_text(test)
    return path


def opened(path: Path, **arguments) -> BabiDataModule:
    data = BabiDataModule(path, **arguments)
    data.prepare_data()
    data.setup()
    return data


def shown(data: BabiDataModule, split: str, row: int) -> tuple[str, str, list[float], str]:
    batch = data.dataset(split)[[row]]
    words = data.processor.tokens(batch.inputs[0].tolist())
    query = data.processor.tokens(batch.query[0].tolist())
    return " ".join(words), " ".join(query), batch.evidence[0].tolist(), data.schema.class_names[int(batch.target)]


def plain(path: Path) -> list[tuple[str, str, list[float], str, int]]:
    """Another reader of the format: text, question, evidence per token, answer and number of the story."""
    found, facts, story = [], {}, -1
    for line in path.read_text().splitlines():
        number, rest = int(line.split(" ", 1)[0]), line.split(" ", 1)[1]
        if number == 1:
            facts, story = {}, story + 1
        if "\t" not in rest:
            facts[number] = rest.lower().replace(".", " .").split()
            continue
        question, answer, support = rest.split("\t")
        evidence = [float(key in map(int, support.split())) for key, words in facts.items() for _ in words]
        text = " ".join(word for words in facts.values() for word in words)
        found.append((text, question.strip().lower().replace("?", " ?"), evidence, answer, story))
    return found


def test_a_question_sees_the_facts_before_it_in_their_order(tmp_path: Path) -> None:
    data = opened(folder(tmp_path))
    text, query, evidence, answer = shown(data, "test", 1)
    assert text == ("<s> mary moved to the bathroom . john went to the hallway . john moved to the garden . </s>")
    assert query == "<s> where is john ? </s>"
    assert evidence[1:-1] == [0.0] * 12 + [1.0] * 6
    assert np.isnan([evidence[0], evidence[-1]]).all()
    assert answer == "garden"
    assert data.schema.query_vocabulary_size == data.schema.vocabulary_size


def test_the_answers_of_the_training_questions_are_the_classes(tmp_path: Path) -> None:
    data = opened(folder(tmp_path), val_share=0)
    assert data.schema.class_names == ("attic", "bathroom", "garden", "hallway", "kitchen", "office")
    assert data.splits == ["train", "test"]


def stories(places: list[str], people: str) -> str:
    return "".join(STORY.replace("Mary", name).format(place=place) for name in people for place in places)


def test_a_story_that_alone_has_an_answer_stays_in_train(tmp_path: Path) -> None:
    folder(tmp_path, train=stories(["hall", "garden"], "abcdefgh") + STORY.format(place="cellar"))
    sizes = set()
    for seed in range(20):
        data = opened(tmp_path, val_share=0.5, seed=seed)
        assert "cellar" in data.schema.class_names
        sizes.add(len(data.dataset("val")))
    assert sizes == {14, 16}  # 8 stories of 17, with the one among them or without


@pytest.mark.parametrize("seed", range(5))
def test_no_story_is_in_train_and_val_not_even_an_equal_one(tmp_path: Path, seed: int) -> None:
    data = opened(folder(tmp_path, train=stories(["garden", "hall"], "abcd") * 3), seed=seed, val_share=0.3)
    last = {
        split: {shown(data, split, row)[0] for row in range(1, len(data.dataset(split)), 2)}
        for split in ("train", "val")
    }
    assert (len(last["train"]), len(last["val"])) == (6, 2)
    assert not last["train"] & last["val"]
    assert (len(data.dataset("train")), len(data.dataset("val"))) == (36, 12)


def test_the_seed_alone_decides_what_is_carved(tmp_path: Path) -> None:
    folder(tmp_path, train=stories(["garden", "hall"], "abcdefgh"))
    carved = [opened(tmp_path, seed=seed).dataset("val") for seed in (0, 0, 1)]
    assert carved[0].ids.tolist() == carved[1].ids.tolist()
    assert carved[0].ids.tolist() != carved[2].ids.tolist()


def test_packed_files_are_read(tmp_path: Path) -> None:
    folder(tmp_path)
    for file in list(tmp_path.iterdir()):
        if file.suffix == ".txt":
            (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    assert len(opened(tmp_path).dataset("test")) == 2


@pytest.mark.parametrize(
    ("bad", "line", "problem"),
    [
        ("1 A b.\n3 C d.\n", 2, r"should begin with the number 2, or 1 for a new story, .* '3 C d\.'"),
        ("1 A b.\n2 C d.\n2 E f.\n", 3, "should begin with the number 3"),
        ("1 A b.\nTwo C d.\n", 2, "should begin with the number 2"),
        ("2 A b.\n", 1, "should begin with the number 1 and a space"),
        ("1 A b.\n2\n", 2, "should begin with the number 2"),
        ("1 A b.\n2 Where? \tbath\n", 2, "followed by its answer and the numbers of the supporting facts"),
        ("1 A b.\n2 Where? \t\t1\n", 2, "followed by its answer"),
        ("1 A b.\n2 \tbath\t1\n", 2, "a question should be followed by"),
        ("1 A b.\n2 Where is A?  bath 1\n", 2, "separated by tabs"),
        ("1 A b.\n2 Where? \tbath\t7\n", 2, r"the supporting line '7' is not among .* \(1\)"),
        ("1 A b.\n2 Where? \tbath\tone\n", 2, "the supporting line 'one' is not among"),
        ("1 A b.\n2 Where? \tbath\t\n", 2, "the supporting line '' is not among"),
        ("1 A b.\n2 Where? \tbath\t1\n3 Where? \tbath\t2\n", 3, "the supporting line '2' is not among"),
        ("1 A b.\n2 Where? \tbath\t1\n1 Where? \tbath\t1\n", 3, r"not among the facts before the question \(none\)"),
    ],
)
def test_a_broken_line_is_named_with_its_file(tmp_path: Path, bad: str, line: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        opened(folder(tmp_path, test=bad))
    assert f"fact_test.txt, line {line}" in str(caught.value)


def test_an_answer_that_train_does_not_have_is_named_with_its_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The test split has the unknown label 'cellar' \(.*_test\.txt, line 5\)"):
        opened(folder(tmp_path, test=STORY.format(place="cellar")))


def test_missing_files_and_impossible_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one file qa1_\*_train\.txt, but there are none"):
        opened(tmp_path)
    with pytest.raises(InputError, match=r"one file qa2_\*_train\.txt"):
        opened(folder(tmp_path), task=2)
    with pytest.raises(InputError, match="reads the tasks 1, 2 and 3, not 4"):
        BabiDataModule(tmp_path, task=4)
    with pytest.raises(InputError, match="val_share must be 0 or more and below 1"):
        BabiDataModule(tmp_path, val_share=1)
    with pytest.raises(InputError, match="holds no question"):
        opened(folder(tmp_path, test="1 Mary moved.\n"))
    with pytest.raises(InputError, match="1 stories, too few to carve"):
        opened(folder(tmp_path, train=TEST))
    (tmp_path / "qa1_another_train.txt").write_text(TRAIN)
    with pytest.raises(InputError, match=r"but there are qa1_another_train\.txt, qa1_single"):
        opened(tmp_path)


def test_tasks_of_one_folder_do_not_share_a_cache(tmp_path: Path) -> None:
    folder(folder(tmp_path), train=TRAIN.replace("Mary", "Ann"), task=2)
    assert "mary" in shown(opened(tmp_path, task=1), "train", 0)[0]
    assert "mary" not in shown(opened(tmp_path, task=2), "train", 0)[0]


# Numbers of the data's own description: stories and questions per file, supporting facts per question, and the mean and
# largest number of facts before a question, of train and of test.
DESCRIBED = {1: (1, (6.0, 10), (6.0, 10)), 2: (2, (15.4, 56), (15.4, 88)), 3: (3, (50.0, 224), (51.0, 228))}


@pytest.mark.parametrize("task", DESCRIBED)
def test_the_tasks_read_as_another_reader_reads_them(real_data: Path, task: int) -> None:
    path = real_data / "babi_en_1k"
    support, *lengths = DESCRIBED[task]
    data = opened(path, task=task, val_share=0)
    assert "longer than max_length" not in data.describe()
    assert data.schema.class_names == ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
    for split, (mean, largest) in zip(("train", "test"), lengths, strict=True):
        expected = plain(next(path.glob(f"qa{task}_*_{split}.txt")))
        assert len(expected) == len(data.dataset(split)) == 1000
        assert len({story for *_, story in expected}) == 200
        facts = []
        for row, (text, question, evidence, answer, _) in enumerate(expected):
            seen, asked, marked, target = shown(data, split, row)
            assert (seen, asked, target) == (f"<s> {text} </s>", f"<s> {question} </s>", answer)
            assert marked[1:-1] == evidence
            facts.append(text.count("."))
            marks = re.sub(r"0*(1+)0*", r"\1 ", "".join("1" if mark else "0" for mark in evidence))
            assert 1 <= len(marks.split()) <= support  # neighbouring facts run together
        assert round(float(np.mean(facts)), 1) == mean
        assert max(facts) == largest


def test_validation_is_fifteen_per_cent_of_the_stories(real_data: Path) -> None:
    data = opened(real_data / "babi_en_1k")
    assert (len(data.dataset("train")), len(data.dataset("val"))) == (850, 150)
    assert "val: 30 of the training stories, by seed 0." in data.describe()


def test_another_processor_may_cut(tmp_path: Path) -> None:
    data = opened(folder(tmp_path), processor=WordProcessor(max_length=10))
    assert "test: 2 of 2 texts are longer than max_length 10" in data.describe()
