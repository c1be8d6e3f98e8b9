"""Sentences on drugs and their adverse effects: `ADEDataModule`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import COMPRESSED, existing, read_lines
from lightning_attn.data.labels import stratified
from lightning_attn.errors import InputError

RELATIONS, OTHERS = "DRUG-AE.rel", "ADE-NEG.txt"
CLASSES = ("no adverse effect", "adverse effect")
_WORD = re.compile(r"\w+|[^\w\s]")

Span = tuple[int, int]


@dataclass
class _Sentence:
    """A sentence that reports an adverse effect, and where its drugs and effects stand."""

    abstract: str
    line: int
    spans: set[Span] = field(default_factory=set)


class ADEDataModule(CorpusDataModule):
    """Does a sentence of a case report tell of an adverse effect of a drug? With drug and effect marked.

    Reads ``DRUG-AE.rel`` and ``ADE-NEG.txt`` (or ``.xz``, ``.gz``) of the ADE corpus, version 2. Every distinct
    sentence is one example, and punctuation makes words of its own. In sentences with an effect, the evidence is 1 on
    the words of all drugs and effects that their relations name, and 0 elsewhere; in the others nothing was marked, and
    it is NaN. There is no official split: abstracts are divided by ``seed``, with about equal shares of the classes, so
    that no abstract has sentences in two splits.

    Source: Gurulingappa et al., Journal of Biomedical Informatics 45(5), 2012,
    https://doi.org/10.1016/j.jbi.2012.04.008

    Args:
        path: Folder of the two files.
        val_share: Part of the abstracts that becomes ``val``, in (0, 1).
        test_share: Part of the abstracts that becomes ``test``, in (0, 1).
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.

    Raises:
        InputError: The shares are not positive, or leave nothing for training.
    """

    def __init__(
        self,
        path: str | Path,
        val_share: float = 0.1,
        test_share: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.shares = (val_share, test_share)
        if min(self.shares) <= 0 or sum(self.shares) >= 1:
            raise InputError(
                f"val_share {val_share} and test_share {test_share} must be above 0 and add up to below 1."
            )

    def classes(self) -> list[str]:
        """Class names in the order of the logits."""
        return list(CLASSES)

    def settings(self) -> dict[str, Any]:
        """What the splits depend on."""
        return {"shares": self.shares, "seed": self.seed}

    def files(self) -> list[Path]:
        """The two files, packed or not."""
        folder = existing(self.path, "folder of the ADE corpus")
        return [_find(folder, name) for name in (RELATIONS, OTHERS)]

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The sentences, divided by abstract."""
        relations, others = self.files()
        examples = Examples([], [], str(relations.parent), evidence=[], lines=[])
        assert examples.evidence is not None
        assert examples.lines is not None
        abstracts: list[str] = []
        for text, sentence in _read_relations(relations).items():
            words = list(_WORD.finditer(text))
            examples.texts.append([word.group() for word in words])
            examples.evidence.append([float(_touches(word.span(), sentence.spans)) for word in words])
            examples.labels.append(CLASSES[1])
            examples.lines.append(sentence.line)
            abstracts.append(sentence.abstract)
        for text, sentence in _read_others(others).items():
            parts = _WORD.findall(text)
            examples.texts.append(parts)
            examples.evidence.append([float("nan")] * len(parts))
            examples.labels.append(CLASSES[0])
            examples.lines.append(sentence.line)
            abstracts.append(sentence.abstract)
        val, test = self.shares
        rest, tested = stratified(examples.labels, abstracts, test, self.seed)
        kept, validated = stratified(
            [examples.labels[row] for row in rest], [abstracts[row] for row in rest], val / (1 - test), self.seed
        )
        splits = {"train": rest[kept], "val": rest[validated], "test": tested}
        notes = [f"Abstracts divided by seed {self.seed}: {val:.0%} for val, {test:.0%} for test."]
        return {split: examples.take(rows) for split, rows in splits.items()}, notes


def _find(folder: Path, name: str) -> Path:
    for ending in ("", *COMPRESSED):
        if (path := folder / f"{name}{ending}").is_file():
            return path
    raise InputError(f"{folder} has no {name} (or {name}.xz): it should hold the files of the ADE corpus.")


def _read_relations(path: Path) -> dict[str, _Sentence]:
    """By sentence, where drugs and effects stand, of all the lines on it."""
    sentences: dict[str, _Sentence] = {}
    for number, line in read_lines(path):
        place = f"{path}, line {number}"
        parts = line.split("|")
        try:
            effect, effect_at, _, drug, drug_at, _ = parts[2:][-6:]
            distance = int(effect_at) - int(drug_at)
        except ValueError:
            raise InputError(
                f"{place}, is no relation of the ADE corpus: it needs PubMed id, sentence, effect, its begin and end, "
                "drug, its begin and end, separated by |."
            ) from None
        abstract, text = parts[0], "|".join(parts[1:-6])  # a sentence may hold the separator
        sentence = sentences.setdefault(text, _Sentence(abstract, number))
        sentence.spans |= _locate(text, drug, effect, distance, place)
    return sentences


def _locate(text: str, drug: str, effect: str, distance: int, place: str) -> set[Span]:
    """Where drug and effect stand in the sentence: their offsets count in the abstract, but their distance holds."""
    at = text.find(drug)
    while at >= 0:
        other = at + distance
        if other >= 0 and text.startswith(effect, other):
            return {(at, at + len(drug)), (other, other + len(effect))}
        at = text.find(drug, at + 1)
    raise InputError(f"{place}, names the drug {drug!r} and the effect {effect!r}, which its sentence does not have.")


def _read_others(path: Path) -> dict[str, _Sentence]:
    sentences: dict[str, _Sentence] = {}
    for number, line in read_lines(path):
        abstract, mark, text = (*line.split(" ", 2), "", "")[:3]
        if mark != "NEG" or not text.strip():
            raise InputError(f"{path}, line {number}, is no sentence of the ADE corpus: it needs PubMed id, NEG, text.")
        sentences.setdefault(text, _Sentence(abstract, number))
    return sentences


def _touches(word: Span, spans: set[Span]) -> bool:
    return any(start < word[1] and word[0] < end for start, end in spans)
