import csv
from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import SSTDataModule
from lightning_attn.data.trees import parse_tree, unescape
from lightning_attn.errors import InputError

GOOD = "(4 (2 A) (4 (3 (4 joy)) (2 .)))"
BAD = "(1 (2 (2 No) (2 -LRB-)) (0 awful))"
NEUTRAL = "(2 (3 (2 So) (4 great)) (2 a\\/b))"


def folder(path: Path, **files: str) -> Path:
    for name in ("train", "dev", "test"):
        (path / f"{name}.txt").write_text(files.get(name, f"{GOOD}\n{BAD}\n{NEUTRAL}\n"), encoding="utf-8")
    return path


def opened(path: Path, **arguments) -> SSTDataModule:
    data = SSTDataModule(path, **arguments)
    data.prepare_data()
    data.setup()
    return data


def nested(line: str) -> list:
    """An independent reader: the tree as nested lists, by way of Python's own parser."""
    text = "".join(
        "[" if piece == "(" else "]," if piece == ")" else f"{piece!r},"
        for piece in line.replace("(", " ( ").replace(")", " ) ").split(" ")
        if piece
    )
    return eval(text.rstrip(","))


def leaves(tree: list) -> list[tuple[int, str]]:
    label, *children = tree
    if isinstance(children[0], str):
        return [(int(label), children[0])]
    return [leaf for child in children for leaf in leaves(child)]


def test_a_tree_gives_label_words_and_their_labels() -> None:
    assert parse_tree(GOOD) == (4, ["A", "joy", "."], [2, 4, 2])
    assert parse_tree("(3 one)") == (3, ["one"], [3])
    assert parse_tree("(3 (2 a\u00a0b) (3 c))") == (3, ["a\u00a0b", "c"], [2, 3])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "(3 (2 a)",
        "(3 (2 a)))",
        "(5 a)",
        "(3)",
        "3 a",
        "(3 a) (2 b)",
        "(3 a b)",
        "(3 a (2 b))",
        "(3 (2 a) b)",
        "( (2 a))",
    ],
)
def test_what_is_no_tree_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_tree(line)
    data = SSTDataModule(folder(tmp_path, dev=f"{GOOD}\n{line}\n"))
    with pytest.raises(InputError, match=r"dev\.txt, line 2, is not a tree"):
        data.prepare_data()


def test_escapes_of_the_treebank_are_undone() -> None:
    assert [unescape(word) for word in ("-LRB-", "-RRB-", "1\\/2", "``", "''", "n't", "--")] == [
        "(", ")", "1/2", '"', '"', "n't", "--",
    ]  # fmt: skip


def test_binary_leaves_neutral_sentences_out(tmp_path: Path) -> None:
    data = opened(folder(tmp_path))
    assert data.schema.class_names == ("negative", "positive")
    assert [len(data.dataset(split)) for split in data.splits] == [2, 2, 2]
    batch = data.dataset("train")[[0, 1]]
    assert batch.target.tolist() == [1, 0]
    assert batch.evidence is not None
    assert batch.evidence[:, 1:4].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert data.processor.tokens(batch.inputs[1].tolist()) == ["<s>", "no", "(", "awful", "</s>"]


def test_five_classes_and_graded_evidence(tmp_path: Path) -> None:
    every = "\n".join(f"({label} (2 a) ({label} w))" for label in range(5))
    data = opened(folder(tmp_path, train=every), classes="five", evidence="graded")
    assert data.schema.num_classes == 5
    batch = data.dataset("train")[range(5)]
    assert batch.target.tolist() == [0, 1, 2, 3, 4]
    assert batch.evidence is not None
    assert batch.evidence[:, 2].tolist() == [1, 0.5, 0, 0.5, 1]


def test_short_sentences_may_be_left_out(tmp_path: Path) -> None:
    longer = "(3 (2 One) (3 (2 ,) (3 (2 two) (2 !))))"
    data = opened(folder(tmp_path, train=f"{longer}\n(1 (1 bad) (2 film))\n(4 joy)"), min_length=2)
    assert len(data.dataset("train")) == 2


def test_punctuation_may_be_left_out_and_separates_words(tmp_path: Path) -> None:
    train = "\n".join(
        ["(4 (2 A) (4 (4 (4 well-made) (2 film)) (2 .)))", BAD, "(1 (2 !) (0 -RRB-))", "(3 (2 it) (2 's))"]
    )
    data = opened(folder(tmp_path, train=train), punctuation=False, min_length=0)
    dataset = data.dataset("train")
    assert len(dataset) == 3  # nothing is left of the third sentence
    batch = dataset[range(3)]
    rows = [data.processor.tokens(ids[inner].tolist()) for ids, inner in zip(batch.inputs, batch.inner, strict=True)]
    assert rows == [["a", "well", "made", "film"], ["no", "awful"], ["it", "s"]]
    assert batch.evidence is not None
    evidence = [values[inner].tolist() for values, inner in zip(batch.evidence, batch.inner, strict=True)]
    assert evidence == [[0, 1, 1, 0], [0, 1], [0, 0]]


def test_a_class_without_training_example_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'negative' has no training example in .*train\.txt"):
        opened(folder(tmp_path, train=GOOD))


def test_a_folder_without_trees_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of train\.txt, dev\.txt, test\.txt"):
        SSTDataModule(tmp_path).prepare_data()
    with pytest.raises(InputError, match="no folder of SST trees at"):
        SSTDataModule(tmp_path / "nowhere").prepare_data()


def test_the_treebank_has_the_published_numbers(real_data: Path) -> None:
    words, rows = {"train": 163_563, "val": 21_274, "test": 42_405}, {"train": 8544, "val": 1101, "test": 2210}
    data = opened(real_data / "sst", classes="five")
    for split, count in words.items():
        part = data.dataset(split)
        assert (~part.special).sum() == count
        assert len(part) == rows[split]
    assert np.bincount(data.dataset("test").labels).tolist() == [279, 633, 389, 510, 399]
    binary = opened(real_data / "sst")
    assert [np.bincount(binary.dataset(split).labels).tolist() for split in binary.splits] == [
        [3310, 3610], [428, 444], [912, 909],
    ]  # fmt: skip


def test_the_length_filter_gives_the_published_test_set_but_for_its_longest(real_data: Path) -> None:
    assert np.bincount(opened(real_data / "sst", min_length=6).dataset("test").labels).tolist() == [863, 863]


def test_without_punctuation_the_words_are_those_of_the_published_table(real_data: Path) -> None:
    with (real_data / "sst" / "sst_dataset.csv").open(encoding="utf-8") as lines:
        published = [row["text"].split() for row in csv.DictReader(lines) if row["exp_split"] == "dev"]
    data = opened(real_data / "sst", punctuation=False)
    dataset = data.dataset("val")
    batch = dataset[range(len(dataset))]
    known = set(data.processor.vocabulary)
    found = [data.processor.tokens(ids[inner].tolist()) for ids, inner in zip(batch.inputs, batch.inner, strict=True)]
    wanted = [[word if word in known else "<unk>" for word in words] for words in published]
    # they split one word that the trees do not, of "a 28k modem"
    assert sum(mine != theirs for mine, theirs in zip(found, wanted, strict=True)) == 1
    assert (found[559][-2:], published[559][-3:]) == (["<unk>", "modem"], ["28", "k", "modem"])


def test_the_reader_agrees_with_another(real_data: Path) -> None:
    for line in (real_data / "sst" / "dev.txt").read_text(encoding="utf-8").split("\n")[:300]:
        tree = nested(line)
        root, words, labels = parse_tree(line)
        assert (root, list(zip(labels, words, strict=True))) == (int(tree[0]), leaves(tree))
