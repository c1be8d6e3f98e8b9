from __future__ import annotations

import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import ADEDataModule, HuggingFaceProcessor
from lightning_attn.data.ade import _read_relations
from lightning_attn.errors import InputError
from tests.helpers.tiny_models import save_tokenizer

# The offsets count in an abstract that is not there: only their distance means something.
RELATIONS = [
    "1|Intravenous azithromycin-induced ototoxicity.|ototoxicity|43|54|azithromycin|22|34",
    "1|After aspirin, a rash and then fever; aspirin again.|rash|219|223|aspirin|208|215",
    "1|After aspirin, a rash and then fever; aspirin again.|fever|133|138|aspirin|140|147",
    '2|The "odd|even" drug X made hives|hives|30|35|drug X|18|24',
]
OTHERS = ["3 NEG All was well.", "3 NEG Nothing, really.", "3 NEG All was well.", "1 NEG Aspirin was given."]


def folder(path: Path, relations: list[str] = RELATIONS, others: list[str] = OTHERS, packed: bool = False) -> Path:
    for name, lines in (("DRUG-AE.rel", relations), ("ADE-NEG.txt", others)):
        content = "".join(line + "\n" for line in lines)
        if packed:
            with lzma.open(path / f"{name}.xz", "wt", encoding="utf-8") as file:
                file.write(content)
        else:
            (path / name).write_text(content)
    return path


def many(path: Path) -> Path:
    relations = [f"{n // 2}|Case {n}: pills gave spots.|spots|20|25|pills|9|14" for n in range(60)]
    return folder(path, relations, [f"{100 + n // 3} NEG Case {n} was well." for n in range(240)])


def opened(path: Path, **arguments) -> ADEDataModule:
    data = ADEDataModule(path, **arguments)
    data.prepare_data()
    data.setup()
    return data


def marked(data: ADEDataModule) -> dict[str, list[str]]:
    """The words with evidence, by sentence."""
    found = {}
    for split in data.splits:
        batch = data.dataset(split)[range(len(data.dataset(split)))]
        for row in range(len(batch)):
            assert batch.evidence is not None
            tokens = data.processor.tokens(batch.inputs[row].tolist())
            words = [token for token, inner in zip(tokens, batch.inner[row].tolist(), strict=True) if inner]
            values = batch.evidence[row][batch.inner[row]].tolist()
            known = [word for word, value in zip(words, values, strict=True) if value == 1]
            found[" ".join(words)] = ["?"] if all(map(math.isnan, values)) else known
    return found


def test_drugs_and_effects_become_evidence(tmp_path: Path) -> None:
    examples, _ = ADEDataModule(folder(tmp_path)).read()
    texts = {}
    for part in examples.values():
        assert part.evidence is not None
        texts |= {" ".join(text): values for text, values in zip(part.texts, part.evidence, strict=True)}
    assert texts["Intravenous azithromycin - induced ototoxicity ."] == [0, 1, 0, 0, 1, 0]
    # "fever" stands before the drug in its relation: that is the second "aspirin".
    assert texts["After aspirin , a rash and then fever ; aspirin again ."] == [0, 1, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0]
    assert texts['The " odd | even " drug X made hives'] == [0, 0, 0, 0, 0, 0, 1, 1, 0, 1]
    assert np.isnan(texts["All was well ."]).all()
    assert len(texts) == 6, "equal sentences are one example"


@pytest.mark.parametrize("packed", [False, True])
def test_splits_keep_abstracts_apart(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "data").mkdir()
    many(tmp_path / "data")
    data = opened(tmp_path / "data", val_share=0.2, test_share=0.2)
    assert data.schema.class_names == ("no adverse effect", "adverse effect")
    examples, notes = data.read()
    assert "20% for val" in notes[0]
    abstracts = {}
    for split, part in examples.items():
        numbers = [int(text[1]) for text in part.texts]
        abstracts[split] = {
            (label, number // (2 if label == "adverse effect" else 3))
            for label, number in zip(part.labels, numbers, strict=True)
        }
        assert len(part) == {"train": 180, "val": 60, "test": 60}[split]
        assert sum(label == "adverse effect" for label in part.labels) == len(part) // 5
    assert not abstracts["train"] & abstracts["val"]
    assert not (abstracts["train"] | abstracts["val"]) & abstracts["test"]
    again, _ = ADEDataModule(tmp_path / "data", 0.2, 0.2).read()
    assert again["test"].texts == examples["test"].texts
    other, _ = ADEDataModule(tmp_path / "data", 0.2, 0.2, seed=1).read()
    assert other["test"].texts != examples["test"].texts


def test_packed_files_give_the_same(tmp_path: Path) -> None:
    for name in ("plain", "packed"):
        (tmp_path / name).mkdir()
    plain, _ = ADEDataModule(folder(tmp_path / "plain")).read()
    packed, _ = ADEDataModule(folder(tmp_path / "packed", packed=True)).read()
    assert {name: part.texts for name, part in plain.items()} == {name: part.texts for name, part in packed.items()}


def test_subwords_get_the_evidence_of_their_word(tmp_path: Path) -> None:
    many(tmp_path)
    save_tokenizer(tmp_path / "model", ["pills gave spots case"] * 3, vocabulary=30)
    data = opened(tmp_path, processor=HuggingFaceProcessor(str(tmp_path / "model")))
    assert {"".join(words).replace("##", "") for words in marked(data).values()} <= {"pillsspots", "?"}


@pytest.mark.parametrize(
    ("relations", "others", "problem"),
    [
        (["1|A text|x|1|2|y|3"], OTHERS, r"DRUG-AE.rel, line 1, is no relation"),
        (["1|A text.|x|one|2|y|3|4"], OTHERS, r"line 1, is no relation"),
        ([RELATIONS[0], "1|A rash from aspirin.|rash|9|13|aspirin|2|9"], OTHERS, r"line 2, names the drug 'aspirin'"),
        ([RELATIONS[0], "1|A rash.|rash|9|13|aspirin|2|9"], OTHERS, r"line 2, names the drug 'aspirin'"),
        (RELATIONS, ["3 NEG fine", "3 POS text"], r"ADE-NEG.txt, line 2, is no sentence"),
        (RELATIONS, ["3 NEG "], r"ADE-NEG.txt, line 1, is no sentence"),
        (RELATIONS, ["3"], r"ADE-NEG.txt, line 1, is no sentence"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, relations: list[str], others: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        ADEDataModule(folder(tmp_path, relations, others)).prepare_data()


def test_missing_files_and_wrong_shares_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of the ADE corpus"):
        ADEDataModule(tmp_path / "nowhere").prepare_data()
    with pytest.raises(InputError, match=r"has no DRUG-AE.rel \(or DRUG-AE.rel.xz\)"):
        ADEDataModule(tmp_path).prepare_data()
    for shares in ((0, 0.1), (0.5, 0.5)):
        with pytest.raises(InputError, match="add up to below 1"):
            ADEDataModule(tmp_path, *shares)


def test_the_corpus_has_the_published_numbers(real_data: Path) -> None:
    data = opened(real_data / "ade_corpus_v2")
    counts = [np.bincount(data.dataset(split).labels) for split in ("train", "val", "test")]
    assert sum(counts).tolist() == [16625, 4271]
    shares = [count[1] / count.sum() for count in counts]
    assert max(shares) - min(shares) < 0.02
    sentences = _read_relations(next((real_data / "ade_corpus_v2").glob("DRUG-AE*")))
    for text, sentence in sentences.items():
        assert sentence.spans
        assert all(0 <= start < end <= len(text) for start, end in sentence.spans)
    for split in data.splits:
        part = data.dataset(split)
        assert part.evidence is not None
        for row in np.flatnonzero(part.labels)[:200]:
            assert (part.evidence[part.offsets[row] : part.offsets[row + 1]] == 1).any()
