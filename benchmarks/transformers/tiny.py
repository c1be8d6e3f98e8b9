"""A tiny model, and data in the layouts of the real ones, for ``--quick``: made in a moment, without a download."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

ASPECTS = ["film", "plot", "script", "music", "cast", "story"]
OPINIONS = (["dull", "weak", "boring", "stale"], ["great", "fresh", "moving", "clever"])
DAYS = ["monday", "tuesday", "friday", "sunday"]
NAMES = ["anna", "bert", "carla", "david", "emma", "frank"]
TOWNS = ["rome", "oslo", "paris", "lima", "quito", "bonn"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPLITS = {"train": 160, "dev": 40, "test": 40}


def write_tiny(folder: Path) -> tuple[Path, Path]:
    """Write data and model, each time the same.

    Returns:
        The folder of the data, and that of the model.
    """
    draw, data = random.Random(0), folder / "data"
    texts = [*_sst(data / "sst", draw), *_movies(data / "eraser_movies", draw), *_nli(data, draw)]
    texts += [*_questions(data / "squad_xquad_en", draw), *_parses(data / "ud_english_ewt", draw)]
    _model(folder / "model", texts)
    return data, folder / "model"


def _review(draw: random.Random, label: int) -> list[str]:
    words = ["the", draw.choice(ASPECTS), "was", draw.choice(OPINIONS[label])]
    return [*words, "and", "we", "saw", "it", "on", draw.choice(DAYS), "."]


def _sst(folder: Path, draw: random.Random) -> Iterable[str]:
    folder.mkdir(parents=True, exist_ok=True)
    texts = []
    for split, count in SPLITS.items():
        lines = []
        for number in range(count):
            label = number % 2
            words = _review(draw, label)
            leaves = [f"({4 * label if word in OPINIONS[label] else 2} {word})" for word in words]
            lines.append(f"({4 * label} {' '.join(leaves)})\n")
            texts.append(" ".join(words))
        (folder / f"{split}.txt").write_text("".join(lines))
    return texts


def _movies(folder: Path, draw: random.Random) -> Iterable[str]:
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    texts = []
    for split, count in {"train": 64, "val": 16, "test": 16}.items():
        rows = []
        for number in range(count):
            name, label = f"{split}{number}.txt", number % 2
            review, first = _review(draw, label), len(DAYS)
            words = [*DAYS, *review]
            span = {"docid": name, "start_token": first, "end_token": first + 4, "start_sentence": 0}
            span |= {"end_sentence": 1, "text": " ".join(review[:4])}
            classes = {"classification": ("NEG", "POS")[label], "query": "sentiment ?", "query_type": None}
            rows.append({"annotation_id": name, "evidences": [[span]], **classes})
            (folder / "docs" / name).write_text(" ".join(words))
            texts.append(" ".join(words))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return texts


def _nli(data: Path, draw: random.Random) -> Iterable[str]:
    texts = []
    files = {"counterfactual_nli/all_combined/train.tsv.xz": 160, "snli/dev.csv.xz": 40, "snli/test.csv.xz": 40}
    for name, count in files.items():
        separator = "\t" if ".tsv" in name else ","
        lines = [["sentence1", "sentence2", "gold_label"]]
        for number in range(count):
            person, town, other = draw.choice(NAMES), *draw.sample(TOWNS, 2)
            hypothesis = (f"{person} is in {town}", f"{person} has a job", f"{person} is in {other}")[number % 3]
            label = ("entailment", "neutral", "contradiction")[number % 3]
            lines.append([f"{person} lives and works in {town}", hypothesis, label])
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        with lzma.open(data / name, "wt", encoding="utf-8") as file:
            file.writelines(separator.join(line) + "\n" for line in lines)
        texts += [" ".join(line) for line in lines[1:]]
    return texts


def _questions(folder: Path, draw: random.Random) -> Iterable[str]:
    folder.mkdir(parents=True, exist_ok=True)
    articles, texts = [], []
    for article in range(12):
        people = draw.sample(NAMES, 4)
        towns = dict(zip(people, draw.sample(TOWNS, 4), strict=True))
        context = " ".join(f"{person} lives in {town} ." for person, town in towns.items())
        asked = [
            {
                "id": f"{article}-{person}",
                "question": f"where does {person} live ?",
                "answers": [{"text": town, "answer_start": context.index(town)}],
            }
            for person, town in towns.items()
        ]
        articles.append({"title": str(article), "paragraphs": [{"context": context, "qas": asked}]})
        texts.append(context + " where does live ?")
    (folder / "xquad.en.json").write_text(json.dumps({"data": articles}))
    return texts


def _parses(folder: Path, draw: random.Random) -> Iterable[str]:
    folder.mkdir(parents=True, exist_ok=True)
    sentences, texts = [], []
    for _ in range(60):
        words = [draw.choice(NAMES), "really", "saw", draw.choice(OPINIONS[1]), draw.choice(ASPECTS)]
        links = [(3, "nsubj"), (3, "advmod"), (0, "root"), (5, "amod"), (3, "obj")]
        lines = [
            f"{number}\t{word}\t_\t_\t_\t_\t{head}\t{relation}\t_\t_"
            for number, (word, (head, relation)) in enumerate(zip(words, links, strict=True), 1)
        ]
        sentences.append("\n".join(lines) + "\n\n")
        texts.append(" ".join(words))
    (folder / "en_ewt-ud-train.conllu").write_text("".join(sentences))
    return texts


def _model(folder: Path, texts: Iterable[str]) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # a token of text
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=150, show_progress=False, special_tokens=SPECIAL)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, sep_token="[SEP]", **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    AutoModel.from_config(config).save_pretrained(folder)
