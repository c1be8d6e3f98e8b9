"""Word vectors of film reviews: ``python -m benchmarks.word_vectors --imdb DIR --output FILE``.

Jain and Wallace 2019 start SST from 300 fastText numbers per word, learned on Simple Wikipedia. This makes vectors of
the same kind, size and least word count from the 25,000 labelled training reviews of IMDB, without their labels:
fastText skip-gram by gensim (``pip install -e '.[benchmarks]'``). One worker and a seed: the same file every time.
It takes about five minutes and, for the n-grams of fastText, 1 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

BUCKETS = 200_000  # of n-grams; 2,000,000, as fastText has it, would take 2.4 GB


def words(text: str) -> list[str]:
    """Lower-cased words of a review, punctuation and line breaks of HTML left out."""
    return re.findall(r"\w+", re.sub(r"<br\s*/?>", " ", text.lower()))


def reviews(path: Path) -> Iterator[list[str]]:
    """The words of each review of a jsonl file (``.xz`` too) with a key ``text``."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield words(json.loads(line)["text"])


def main(arguments: list[str] | None = None) -> None:
    """Learn the vectors and write them as a text file in the format of fastText."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imdb", required=True, type=Path, help="folder with train.jsonl.xz, or train.jsonl")
    parser.add_argument("--output", required=True, type=Path, help="file to write, .vec or .vec.gz")
    parser.add_argument("--size", type=int, default=300, help="numbers per word")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--min-count", type=int, default=5, help="least occurrences of a word")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    from gensim.models import FastText  # only this command needs it

    logging.basicConfig(format="%(message)s", level=logging.INFO)  # gensim tells its progress
    path = next(
        (chosen.imdb / name for name in ("train.jsonl.xz", "train.jsonl") if (chosen.imdb / name).exists()), None
    )
    if path is None:
        parser.error(f"{chosen.imdb} has neither train.jsonl.xz nor train.jsonl.")
    texts = list(reviews(path))
    model = FastText(
        texts,
        vector_size=chosen.size,
        sg=1,
        min_count=chosen.min_count,
        epochs=chosen.epochs,
        bucket=BUCKETS,
        seed=chosen.seed,
        workers=1,
    )
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    model.wv.save_word2vec_format(str(chosen.output))
    print(
        f"{len(model.wv):,} words of {len(texts):,} reviews, {chosen.size} numbers each with a standard deviation of "
        f"{model.wv.vectors.std():.3f}, in {chosen.output}"
    )


if __name__ == "__main__":
    main()
