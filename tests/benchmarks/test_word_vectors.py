import json
import lzma
from pathlib import Path

import pytest

from benchmarks.word_vectors import main, reviews, words
from lightning_attn.data.vectors import read_word_vectors
from lightning_attn.data.word_processor import WordProcessor

TEXTS = ["A <br />Great film; great!", "It's well-made<br/><br>. A"]


def test_words_are_lower_case_without_punctuation_and_line_breaks() -> None:
    assert words(TEXTS[0]) == ["a", "great", "film", "great"]
    assert words(TEXTS[1]) == ["it", "s", "well", "made", "a"]


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.xz"])
def test_reviews_are_read_from_plain_and_packed_files(tmp_path: Path, name: str) -> None:
    lines = "".join(json.dumps({"text": text, "label": 0}) + "\n" for text in TEXTS)
    path = tmp_path / name
    path.write_bytes(lzma.compress(lines.encode()) if path.suffix == ".xz" else lines.encode())
    assert list(reviews(path)) == [words(text) for text in TEXTS]


def test_the_same_seed_writes_the_same_readable_file(tmp_path: Path) -> None:
    pytest.importorskip("gensim")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 20))
    for name in ("one.vec", "two.vec"):
        main(["--imdb", str(tmp_path), "--output", str(tmp_path / name), "--size", "8", "--min-count", "21"])
    assert (tmp_path / "one.vec").read_text() == (tmp_path / "two.vec").read_text()
    processor = WordProcessor()
    processor.fit(["a great film"])
    vectors, _ = read_word_vectors(tmp_path / "one.vec", processor)
    known = {word for word, row in zip(processor.vocabulary, vectors, strict=True) if not (row != row).any()}
    assert known == {"a", "great"}
    with pytest.raises(SystemExit):
        main(["--imdb", str(tmp_path / "nowhere"), "--output", str(tmp_path / "x.vec")])
