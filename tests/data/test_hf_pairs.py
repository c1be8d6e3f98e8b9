"""Pairs that are read as one text: against the tokenizer and the model that Hugging Face would run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightning_attn.cli.commands import main
from lightning_attn.data import HuggingFacePairProcessor, NLIDataModule, TextDataModule, TextProcessor
from lightning_attn.encoders import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer
from lightning_attn.networks import PooledNetwork, TransformerNetwork
from lightning_attn.perturbation.perturbations import Delete, Replace
from lightning_attn.types import DataSchema
from tests.helpers.commands import run, write_config
from tests.helpers.tiny_models import KINDS, save_classifier, save_model, save_tokenizer, tiny_config

CORPUS = ["a man sleeps in the park", "somebody is asleep outside", "two girls sing"]
WORDS = " ".join(CORPUS).split()
PAIRS = [("a man sleeps in the park", "somebody sleeps"), ("two girls sing", "a man is in the park outside")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, CORPUS)
    return folder


def fitted(folder: Path, max_length: int = 64) -> HuggingFacePairProcessor:
    processor = HuggingFacePairProcessor(str(folder), max_length)
    processor.fit([])
    return processor


def of(pairs: list[tuple[Any, Any]], processor: HuggingFacePairProcessor) -> Any:
    return processor.encode_pairs([text for text, _ in pairs], [query for _, query in pairs])


@settings(max_examples=30, deadline=None)
@given(st.tuples(*(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join) for _ in range(2))))
@pytest.mark.parametrize("longest", [8, 14, 64])
def test_ids_and_types_are_the_tokenizers_own(folder: Path, longest: int, pair: tuple[str, str]) -> None:
    found = of([pair], fitted(folder, longest))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = tokenizer(*pair, truncation="longest_first", max_length=longest, return_token_type_ids=True)
    assert found.ids.tolist() == expected["input_ids"]
    assert found.segments.tolist() == expected["token_type_ids"]
    assert found.truncated == (len(tokenizer(*pair)["input_ids"]) > longest)
    assert found.special.tolist() == [token in (2, 3) for token in expected["input_ids"]]
    assert (found.sides == -1).tolist() == found.special.tolist()


def test_words_and_evidence_are_those_of_the_text(folder: Path) -> None:
    processor = fitted(folder)
    split = [(text.split(), query.split()) for text, query in PAIRS]
    for pairs in (PAIRS, split):
        found = of(pairs, processor)
        for row, (text, _) in enumerate(PAIRS):
            part = slice(found.offsets[row], found.offsets[row + 1])
            words, sides = found.words[part], found.sides[part]
            assert sorted(set(words[sides == 0].tolist())) == list(range(len(text.split())))
            assert (words[sides != 0] == -1).all()


def test_the_pieces_are_those_of_both_texts(folder: Path) -> None:
    processor = fitted(folder)
    found = TextProcessor.from_state(json.loads(json.dumps(processor.state())))
    assert isinstance(found, HuggingFacePairProcessor)
    pieces = found.surface_pair("A man  sleeps", "two GIRLS")
    assert "".join(pieces).replace("[CLS]", "").replace("[SEP]", "|") == "Amansleeps|twoGIRLS|"


@pytest.mark.parametrize("kind", KINDS)
def test_networks_read_a_pair_as_the_model_does(kind: str, folder: Path, tmp_path: Path) -> None:
    processor = fitted(folder)
    schema = DataSchema(num_classes=3, vocabulary_size=processor.vocabulary_size)
    model_folder = save_classifier(tmp_path, tiny_config(kind, processor.vocabulary_size))
    batch = processor.batch([text for text, _ in PAIRS], [query for _, query in PAIRS])
    assert batch.query is None
    assert batch.segments is not None
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, attn_implementation="eager").eval()
    inputs = {"input_ids": batch.inputs, "attention_mask": batch.valid.long()}
    types = {} if kind in ("distilbert", "roberta") else {"token_type_ids": batch.segments}
    expected = model(**inputs, **types)
    network = TransformerNetwork(str(model_folder)).build(schema).eval()
    torch.testing.assert_close(network(batch).logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.run(network.embed(batch), batch), expected.logits, atol=1e-5, rtol=1e-5)
    pooled = PooledNetwork(PretrainedEncoder(str(model_folder))).build(schema).eval()
    states = model.base_model(**inputs, **types).last_hidden_state
    found = pooled.encoder.contextualise(pooled.embed(batch), batch)
    torch.testing.assert_close(found[batch.valid], states[batch.valid], atol=1e-5, rtol=1e-5)
    if types:  # the types do matter, or this would show nothing
        assert not torch.allclose(network(batch.replace(segments=None)).logits, expected.logits, atol=1e-4)


def test_types_go_along_when_tokens_are_removed(folder: Path) -> None:
    processor = fitted(folder)
    batch = processor.batch([text for text, _ in PAIRS], [query for _, query in PAIRS])
    schema = DataSchema(num_classes=2, replacement_id=4)
    keep = torch.rand(batch.valid.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    keep |= ~batch.inner
    shorter, replaced = Delete().apply(batch, keep, schema), Replace().apply(batch, keep, schema)
    assert batch.segments is not None
    assert shorter.segments is not None
    assert replaced.segments is not None
    for row in range(2):
        expected = batch.segments[row][keep[row] & batch.valid[row]]
        assert shorter.segments[row][shorter.valid[row]].equal(expected)
        assert 0 < len(expected) < batch.valid[row].sum()
    assert replaced.segments.equal(batch.segments)
    assert batch.shortened(3).segments.equal(batch.segments[:, :3])  # type: ignore[union-attr]


def nli_files(folder: Path) -> dict[str, str]:
    rows = [(*PAIRS[number % 2], ("entailment", "neutral")[number % 2]) for number in range(16)]
    for split in ("train", "val"):
        lines = ["sentence1\tsentence2\tgold_label", *("\t".join(row) for row in rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return {split: str(folder / f"{split}.tsv") for split in ("train", "val")}


def test_a_data_module_joins_them_and_counts_what_is_cut(folder: Path, tmp_path: Path) -> None:
    data = NLIDataModule(**nli_files(tmp_path), processor=HuggingFacePairProcessor(str(folder), 9), cache_dir=tmp_path)
    data.prepare_data()
    data.setup()
    assert data.schema.query_vocabulary_size is None
    assert "train: 16 of 16 pairs (the longer text of them) are longer than max_length 9" in data.describe()
    batch = data.dataset("train")[range(4)]
    assert batch.query is None
    assert batch.segments is not None
    assert set(batch.segments[batch.valid].tolist()) == {0, 1}


def test_explain_shows_both_texts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    save_model(model, tiny_config("bert", save_tokenizer(model, CORPUS)))
    processor = {"class_path": "HuggingFacePairProcessor", "init_args": {"name_or_path": str(model), "max_length": 64}}
    data = {**nli_files(tmp_path), "processor": processor, "cache_dir": str(tmp_path / "cache")}
    network = {"class_path": "TransformerNetwork", "init_args": {"name_or_path": str(model)}}
    config = write_config(
        tmp_path,
        model={"class_path": "AttentionClassifier", "init_args": {"network": network}},
        data={"class_path": "NLIDataModule", "init_args": data},
        trainer={"max_epochs": 1, "accelerator": "cpu", "devices": 1, "callbacks": ["AttentionTableCallback"]},
    )
    checkpoint = run("fit", config, tmp_path / "runs") / "checkpoints" / "last.ckpt"
    page = tmp_path / "page.html"
    asked = ["--text", PAIRS[0][0], "--query", PAIRS[0][1], "--output", str(page), "--method=attention,rollout"]
    assert main(["explain", "--ckpt_path", str(checkpoint), *asked]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert "".join(row["tokens"]) == "".join(PAIRS[0]).replace(" ", "")
    first = row["sides"].index(1)
    assert "".join(row["tokens"][:first]) == PAIRS[0][0].replace(" ", "")
    assert len(row["scores"]["rollout"]) == len(row["tokens"]) == len(row["sides"])
    assert page.read_text().count("<br><span") == 2
    explainer = Explainer(checkpoint)
    batch = explainer.processor.batch([PAIRS[0][0]], [PAIRS[0][1]])
    weights = explainer.network(batch).attention[0][batch.inner[0]]
    assert row["scores"]["attention"] == pytest.approx(weights.tolist(), abs=1e-6)
    with pytest.raises(InputError, match="give the query too"):
        explainer.explain([PAIRS[0][0]])


def test_what_cannot_be_joined_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A pair has at least 5 tokens: set max_length above 4"):
        fitted(folder, 4)
    table = tmp_path / "train.csv"
    table.write_text("text,label,query\n" + "a man sleeps,x,two girls\ntwo girls sing,y, \n" * 2)
    alone = TextDataModule(
        table, processor=HuggingFacePairProcessor(str(folder)), cache_dir=tmp_path, val_share=0, test_share=0
    )
    with pytest.raises(InputError, match="has no queries, and HuggingFacePairProcessor is for pairs"):
        alone.prepare_data()
    empty = TextDataModule(
        table,
        query="query",
        processor=HuggingFacePairProcessor(str(folder)),
        cache_dir=tmp_path,
        val_share=0,
        test_share=0,
    )
    with pytest.raises(InputError, match=r"train\.csv, .*the query is empty"):
        empty.prepare_data()
    schema = DataSchema(num_classes=2, vocabulary_size=30, query_vocabulary_size=30)
    with pytest.raises(InputError, match=r"set data\.init_args\.processor to HuggingFacePairProcessor"):
        TransformerNetwork(str(save_classifier(tmp_path / "model", tiny_config("bert")))).build(schema)
