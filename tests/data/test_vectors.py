import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import WordProcessor
from lightning_attn.data.vectors import read_word_vectors
from lightning_attn.errors import InputError

GLOVE = "good 1 2.5 -3e-1\nunused 4 5 6\n. . . 7 8 9\nfilm 0 0 1\n"


@pytest.fixture
def processor() -> WordProcessor:
    words = WordProcessor()
    words.fit([["good", "good", "film", "."]])
    return words


def write(folder: Path, text: str, name: str = "v.txt") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(("head", "name"), [("", "v.txt"), ("4 3\n", "v.vec"), ("", "v.txt.gz"), ("4 3\n", "v.vec.gz")])
def test_rows_of_the_vocabulary_are_found(tmp_path: Path, processor: WordProcessor, head: str, name: str) -> None:
    vectors, note = read_word_vectors(write(tmp_path, head + GLOVE, name), processor)
    place = processor.vocabulary.index
    assert vectors.shape == (processor.vocabulary_size, 3)
    np.testing.assert_allclose(vectors[place("good")], [1, 2.5, -0.3], rtol=1e-6)
    np.testing.assert_allclose(vectors[place("film")], [0, 0, 1])
    assert np.isnan(vectors[[0, 1, 2, 3, place(".")]]).all()
    assert "2 of 3 words" in note


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1 2\ngood 1\n", "line 2, has 1 numbers after its word, but the lines before it have 2"),
        ("a 1 2\n\n", "line 2, has 0 numbers"),
        ("a 1 2\ngood 1 x\n", "line 2, should be a word and numbers"),
        ("a 1 2\ngood 1 inf\n", "line 2, holds a number that is infinite, NaN or beyond float32"),
        ("good 1 nan\n", "line 1, holds a number that is infinite"),
        ("film 1 1\ngood 1 -1e39\n", "line 2, holds a number that is infinite"),
        ("", "is empty"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, processor: WordProcessor, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"v\.txt.*{problem}"):
        read_word_vectors(write(tmp_path, text), processor)


def test_a_truncated_archive_is_called_damaged(tmp_path: Path, processor: WordProcessor) -> None:
    path = write(tmp_path, GLOVE * 999, "v.txt.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"v\.txt\.gz is damaged"):
        read_word_vectors(path, processor)


def test_other_vectors_in_a_file_of_the_same_size_and_time_are_noticed(tmp_path: Path) -> None:
    script = (
        "import sys; from lightning_attn.data import TextDataModule\n"
        "data = TextDataModule(sys.argv[1], val_share=0, test_share=0, word_vectors=sys.argv[2])\n"
        "data.prepare_data(); data.setup(); print(data.word_vectors().nansum().item())"
    )
    (tmp_path / "a.csv").write_text("text,label\ngood film,p\nbad film,n\n")
    path = tmp_path / "v.txt"
    for number in ("1", "2"):
        path.write_text(f"good {number}\n")
        os.utime(path, (0, 0))
        arguments = [sys.executable, "-c", script, str(tmp_path / "a.csv"), str(path)]
        assert subprocess.run(arguments, capture_output=True, check=True, text=True).stdout.strip() == f"{number}.0"
