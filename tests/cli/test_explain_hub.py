"""``lightning explain --model``: classifiers and answerers of Hugging Face, without any training here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

from lightning_attn.attribution import get
from lightning_attn.cli.commands import main
from lightning_attn.data import HuggingFaceProcessor
from lightning_attn.explain import Explainer
from lightning_attn.networks import TransformerNetwork
from tests.helpers.tiny_models import save_classifier, save_model, save_tokenizer, tiny_config

TEXTS = ["the plot was not dull .", "a superb cast"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return save_classifier(folder, tiny_config("bert", save_tokenizer(folder, TEXTS)))


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answerer")
    torch.manual_seed(0)
    AutoModelForQuestionAnswering.from_config(tiny_config("bert", save_tokenizer(folder, TEXTS))).save_pretrained(
        folder
    )
    return folder


def test_a_classifier_says_what_it_says_by_itself(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"--model={classifier}", "--text", *TEXTS, "--method=transatt,attention"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    processor = HuggingFaceProcessor(str(classifier))
    processor.fit([])
    for line, text in zip(lines, TEXTS, strict=True):
        given = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = model(given["input_ids"], attention_mask=given["attention_mask"]).logits[0]
        assert list(line["probabilities"].values()) == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
        batch = processor.batch([text])
        scores = get("transatt").attribute(TransformerNetwork.load(str(classifier)), batch)[batch.inner]
        assert line["scores"]["transatt"] == pytest.approx(scores.tolist(), abs=1e-5)


def test_a_query_makes_it_a_pair(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--text", TEXTS[0], "--query", TEXTS[1], "--method=attention"]
    assert main(["explain", f"--model={classifier}", *options]) == 0
    (line,) = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert set(line["sides"]) == {0, 1}
    ids = AutoTokenizer.from_pretrained(classifier)(*TEXTS, return_tensors="pt")["input_ids"]
    assert len(line["tokens"]) == ids.shape[1] - 3
    ends = ids == 3
    types = (ends.cumsum(dim=1) - ends.long()).clamp(max=1)  # 1 behind the first [SEP]
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        expected = model(ids, token_type_ids=types).logits[0].softmax(-1)
    assert list(line["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_answerer_answers(answerer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    options = ["--text", TEXTS[0], "--query", "what was dull", f"--output={page}"]
    assert main(["explain", f"--model={answerer}", *options]) == 0
    (line,) = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert line["prediction"] in TEXTS[0] or line["prediction"] == "(no answer)"
    assert "what was dull" in page.read_text()


def test_what_does_not_fit_is_said(
    classifier: Path, answerer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = save_model(tmp_path, tiny_config("bert", save_tokenizer(tmp_path, TEXTS)))
    for options, reason in (
        ([], "Give one of --ckpt_path"),
        ([f"--model={classifier}", "--ckpt_path=best.ckpt"], "Give one of --ckpt_path"),
        ([f"--model={answerer}"], "answers questions: give each text its question (--query)"),
        ([f"--model={tmp_path / 'nowhere'}"], "no tokenizer to be loaded"),
        ([f"--model={encoder}"], "is a BertModel, without a classifier whose predictions could be explained"),
    ):
        assert main(["explain", "--text", TEXTS[0], *options]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert reason in error
        assert "Traceback" not in error


def test_a_network_at_hand_is_explained_in_python(classifier: Path) -> None:
    processor = HuggingFaceProcessor(str(classifier))
    processor.fit([])
    network = TransformerNetwork.load(str(classifier)).train()
    (found,) = Explainer.from_network(network, processor).explain(TEXTS[:1], ["rollout"])
    batch = processor.batch(TEXTS[:1])
    assert not network.training
    expected = get("rollout").attribute(network, batch)[batch.inner].tolist()
    assert found.attributions["rollout"] == pytest.approx(expected)


def test_important_heads_of_an_answerer_are_found_and_followed(
    answerer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("conllu", reason="reading CoNLL-U needs conllu, which is not installed")
    words = [("the", 2, "det"), ("plot", 5, "nsubj"), ("was", 5, "cop"), ("not", 5, "advmod"), ("dull", 0, "root")]
    lines = [f"{n}\t{word}\t_\t_\t_\t_\t{head}\t{name}\t_\t_" for n, (word, head, name) in enumerate(words, 1)]
    conllu, heads, page = tmp_path / "one.conllu", tmp_path / "heads.json", tmp_path / "page.html"
    conllu.write_text("\n".join(lines) + "\n\n")
    found = ["--criteria=positional", "--offset_share=0.1"]
    assert main(["heads", f"--model={answerer}", "--conllu", str(conllu), f"--output={heads}", *found]) == 0
    options = ["--text", TEXTS[0], "--query", "what was dull", "--method=mask_lrp", f"--heads={heads}"]
    assert main(["explain", f"--model={answerer}", *options, f"--output={page}"]) == 0
    assert "attention heads are important" in page.read_text()
