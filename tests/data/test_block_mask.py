from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import BlockMaskDataModule
from lightning_attn.errors import InputError

TEXT = "1\tSo good . It is  a town .\n0\tBad film . The river is long .\n"
BLOCK = "1 1 1 0 0 0 0 0\n1 1 1 0 0 0 0 0\n"


def folder(path: Path, text: str = TEXT, block: str = BLOCK) -> Path:
    for name in ("train", "dev", "test"):
        (path / f"{name}.txt").write_text(TEXT if name != "dev" else text)
        (path / f"{name}.txt.block").write_text(BLOCK if name != "dev" else block)
    return path


def opened(path: Path, **arguments) -> BlockMaskDataModule:
    data = BlockMaskDataModule(path, **arguments)
    data.prepare_data()
    data.setup()
    return data


def test_blocks_line_up_with_words_split_at_any_white_space(tmp_path: Path) -> None:
    data = opened(folder(tmp_path), shuffle_parts=False)
    batch = data.dataset("val")[[0]]
    assert data.processor.tokens(batch.inputs[0].tolist()) == [
        "<s>",
        "so",
        "good",
        ".",
        "it",
        "is",
        "a",
        "town",
        ".",
        "</s>",
    ]
    assert batch.evidence is not None
    assert batch.evidence[0, 1:-1].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_classes_may_be_named(tmp_path: Path) -> None:
    assert opened(folder(tmp_path), class_names={"0": "negative", "1": "positive"}).schema.class_names == (
        "negative",
        "positive",
    )


@pytest.mark.parametrize(
    ("text", "block", "problem"),
    [
        (TEXT, "1 1 1 0 0 0 0 0\n1 0\n", r"dev\.txt, line 2: the text has 8 words, but its evidence has 2"),
        (TEXT, "1 1 1 0 0 0 0 0\n1 x\n", r"dev\.txt\.block, line 2, should be one 0 or 1 per word"),
        (TEXT, "1 1 1 0 0 0 0 0\n", r"dev\.txt has 2 lines, but dev\.txt\.block has 1"),
        ("1\ta\nno tab\n", "1\n1\n", r"dev\.txt, line 2, should be a label, a tab and a text"),
        ("1\ta\n0\t \n", "1\n\n", r"dev\.txt, line 2: the text is empty"),
        ("1\ta\n7\tb\n", "1\n1\n", r"unknown label '7' \(.*dev\.txt, line 2\)"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, block: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        BlockMaskDataModule(folder(tmp_path, text, block)).prepare_data()


def test_an_unknown_label_beside_given_names_is_named(tmp_path: Path) -> None:
    data = BlockMaskDataModule(folder(tmp_path), class_names={"0": "negative", "2": "positive"})
    with pytest.raises(InputError, match=r"line 1: unknown label '1'; class_names has '0', '2'"):
        data.prepare_data()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of train\.txt"):
        BlockMaskDataModule(tmp_path).prepare_data()
    (tmp_path / "train.txt").write_text(TEXT)
    with pytest.raises(InputError, match=r"no evidence for train\.txt at .*train\.txt\.block"):
        BlockMaskDataModule(tmp_path).prepare_data()


def test_shuffled_parts_hold_the_same_words_with_the_same_evidence(real_data: Path) -> None:
    shuffled, plain = opened(real_data / "sst_wiki"), opened(real_data / "sst_wiki", shuffle_parts=False)
    moved = 0
    for number in range(300):
        one, two = shuffled.dataset("val")[number], plain.dataset("val")[number]
        pairs = [
            sorted(zip(batch.inputs[0, 1:-1].tolist(), batch.evidence[0, 1:-1].tolist(), strict=True))
            for batch in (one, two)
        ]
        # ids of both vocabularies are the same because the words are
        assert pairs[0] == pairs[1]
        moved += int(one.evidence[0, 1] == 0)
    assert 110 < moved < 190


def test_sst_wiki_has_the_published_numbers(real_data: Path) -> None:
    data = opened(real_data / "sst_wiki")
    for split, rows, ones, zeros in (
        ("train", 6920, 133_555, 160_021), ("val", 872, 17_046, 19_972), ("test", 1821, 35_023, 42_414),
    ):  # fmt: skip
        part = data.dataset(split)
        assert part.evidence is not None
        assert (len(part), (part.evidence == 1).sum(), (part.evidence == 0).sum()) == (rows, ones, zeros)
    assert np.bincount(data.dataset("test").labels).tolist() == [912, 909]
