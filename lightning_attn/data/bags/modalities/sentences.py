"""Real sentences as vectors of their words: `Sentences`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from lightning_attn.data.bags.dataset import SPLITS
from lightning_attn.data.bags.modalities.base import PooledModality, divide, positive
from lightning_attn.data.encoded import Array
from lightning_attn.data.files import existing
from lightning_attn.data.labels import find_classes
from lightning_attn.data.table_rows import read_tables
from lightning_attn.data.tables import find_tables
from lightning_attn.data.vectors import read_word_vectors
from lightning_attn.data.word_processor import WordProcessor
from lightning_attn.errors import InputError


class Sentences(PooledModality):
    """An instance is a sentence of a table, its kind is the sentence's label, its features are its words' vectors.

    The features are the mean of the vectors of the words, weighted by tf-idf and scaled to length 1. The vectors come
    from a file; or they are those of latent semantic analysis, the singular vectors of the tf-idf matrix
    (scikit-learn). Word weights and analysis know the training sentences alone.

    Splits are those of the table's files (train, dev, test), else three fifths, a fifth and a fifth of each label,
    drawn by the seed. A sentence that occurs again is left out, so that no split knows those of another. Which
    sentences a bag holds is the same on every machine; the features may differ in the last digits, as the libraries of
    linear algebra do.

    Source: Deerwester et al. 1990, Indexing by latent semantic analysis, JASIS 41(6).

    Args:
        path: A csv, tsv, jsonl or parquet file, or a folder of them.
        letters: The labels that tasks call A and B; sentences of other labels are background, and so is B in a task
            without B.
        text: Column of the sentences.
        label: Column of their labels.
        vectors: GloVe or fastText text file (.txt, .vec, .gz) with vectors for the words; None for the analysis.
        dim: Number of features of the analysis; a file of vectors decides itself.

    Raises:
        InputError: There are not two different letters, or ``dim`` is not above 0.
    """

    def __init__(
        self,
        path: str | Path,
        letters: Sequence[str],
        text: str = "text",
        label: str = "label",
        vectors: str | Path | None = None,
        dim: int = 50,
    ) -> None:
        super().__init__(tuple(letters))
        positive(self, dim=dim)
        self.path = path
        self.text = text
        self.label = label
        self.vectors = vectors
        self.dim = dim
        self._rows: tuple[list[str], list[str], list[str]] | None = None
        self._features: dict[int, tuple[dict[str, Array], Array]] = {}

    def names(self) -> list[str]:
        """The labels, by number if all are whole numbers, else by alphabet."""
        return find_classes(self._read()[1])

    def pool(self, split: str, seed: int) -> tuple[Array, Array]:
        """The sentences of a split.

        Raises:
            InputError: The table cannot be read, or has no such split.
        """
        rows, features = self._embedded(seed)
        labels = np.array(self._read()[1])
        places = {name: place for place, name in enumerate(self.names())}
        return features[rows[split]], np.array(
            [places[label] for label in labels[rows[split]].tolist()], dtype=np.int64
        )

    def describe(self) -> str:
        """With the letters, and where the vectors are from."""
        origin = "latent semantic analysis" if self.vectors is None else Path(self.vectors).name
        return f"sentences (A is {self.letters[0]}, B is {self.letters[1]}; vectors from {origin})"

    def _read(self) -> tuple[list[str], list[str], list[str]]:
        """Sentences, labels and splits ("" if the table has none), each sentence once."""
        if self._rows is None:
            columns = [self.text, self.label]
            rows: dict[str, tuple[str, str]] = {}
            tables = find_tables(existing(self.path, "table of sentences"))
            for split, files in tables.items():
                table = read_tables(files, columns, columns)
                for text, label in zip(table.columns[self.text], table.columns[self.label], strict=True):
                    rows.setdefault(str(text), (str(label), split if len(tables) > 1 else ""))
            self._rows = [*rows], [label for label, _ in rows.values()], [split for _, split in rows.values()]
        return self._rows

    def _embedded(self, seed: int) -> tuple[dict[str, Array], Array]:
        """Rows of each split, and the features of all sentences."""
        if seed not in self._features:
            texts, labels, splits = self._read()
            if any(splits):
                rows = {split: np.flatnonzero(np.array(splits) == split) for split in SPLITS}
                if missing := [split for split in SPLITS if not len(rows[split])]:
                    raise InputError(f"{self.path} has no {missing[0]} file; give one of each split, or a single file.")
            else:
                rows = divide(np.array(labels), seed)
            self._features[seed] = rows, self._embed(texts, rows["train"], seed)
        return self._features[seed]

    def _embed(self, texts: list[str], train: Array, seed: int) -> Array:
        from sklearn.decomposition import TruncatedSVD  # seconds to import
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.preprocessing import normalize

        processor = WordProcessor(boundaries=False)
        processor.fit([texts[row] for row in train])
        encoded = processor.encode(texts)
        ones = np.ones(len(encoded.ids), dtype=np.float64)
        counts = csr_matrix((ones, encoded.ids, encoded.offsets), shape=(len(texts), processor.vocabulary_size))
        weights = TfidfTransformer().fit(counts[train])
        if self.vectors is None:
            if self.dim >= min(len(train), processor.vocabulary_size):
                raise InputError(
                    f"Sentences cannot have a dim of {self.dim}: there are {len(train):,} training sentences, with a "
                    f"vocabulary of {processor.vocabulary_size:,}."
                )
            analysis = TruncatedSVD(self.dim, random_state=seed).fit(weights.transform(counts[train]))
            vectors = analysis.components_.T
        else:
            read, _ = read_word_vectors(existing(self.vectors, "file of word vectors"), processor)
            vectors = np.nan_to_num(read.astype(np.float64))
        return normalize(weights.transform(counts) @ vectors).astype(np.float32)  # type: ignore[no-any-return]
