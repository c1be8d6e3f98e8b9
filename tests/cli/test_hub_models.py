"""Models of Hugging Face that a user may name and that cannot be explained, or not as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from lightning_attn.cli.commands import main
from lightning_attn.data import HuggingFaceProcessor, WordProcessor
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer
from lightning_attn.networks import TransformerNetwork
from tests.helpers.tiny_models import save_classifier, save_tokenizer, tiny_config

TEXTS = ["the plot was not dull .", "a superb cast"]


def made(folder: Path, kind: str = "bert", classes: int = 3, longest: int = 64, **options: Any) -> Path:
    """A classifier with its tokenizer; ``options`` go into its configuration."""
    config = tiny_config(kind, save_tokenizer(folder, TEXTS), longest)
    for name, value in options.items():
        setattr(config, name, value)
    return save_classifier(folder, config, classes=classes)


def explained(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    """What the command says of the texts."""
    assert main(["explain", f"--model={folder}", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(folder: Path | str, reason: str, capsys: pytest.CaptureFixture[str], command: str = "explain") -> None:
    assert main([command, f"--model={folder}", "--text", TEXTS[0], "--method=rollout"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert reason in error
    assert "Traceback" not in error


def test_one_number_or_a_regression_is_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(made(tmp_path / "one", classes=1), "gives 1 number (problem_type None), no probabilities", capsys)
    folder = made(tmp_path / "two", classes=2, problem_type="regression")
    refused(folder, "gives 2 numbers (problem_type regression), no probabilities", capsys)


def test_a_classifier_that_would_be_drawn_at_random_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path)
    file = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if not name.startswith("classifier")}
    save_file(kept, file, metadata={"format": "pt"})
    refused(folder, "end below its last layer, without a classifier whose predictions", capsys)
    with pytest.warns(UserWarning, match="has no classifier: what it predicts is by one that was drawn at random"):
        TransformerNetwork.load(str(folder))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path
    save_tokenizer(folder, TEXTS)
    save_classifier(folder, tiny_config("bert", 1000))
    refused(folder, "and its model 1,000: it belongs to another model, or there is none in that folder", capsys)


def test_class_names_have_to_be_those_of_the_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path / "gap", classes=2)
    config = json.loads((folder / "config.json").read_text()) | {"id2label": {"1": "neg", "2": "pos"}}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "names the outputs 1, 2; there are 2, numbered from 0", capsys)
    twice = made(tmp_path / "twice", classes=2)
    config = json.loads((twice / "config.json").read_text()) | {"id2label": {"0": "a", "1": "a"}}
    (twice / "config.json").write_text(json.dumps(config))
    (line,) = explained(twice, capsys, "--text", TEXTS[0], "--method=rollout")
    assert sum(line["probabilities"].values()) == pytest.approx(1)
    assert list(line["probabilities"]) == ["a (0)", "a (1)"]


def test_broken_numbers_and_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path / "nan")
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["classifier.weight"] = weights["classifier.weight"] * float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    refused(folder, "whose answer to a text is no number", capsys)
    broken = made(tmp_path / "list")
    (broken / "config.json").write_text("[]")
    refused(broken, "There is no", capsys)


def test_a_run_or_a_checkpoint_is_no_model_of_hugging_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    for given in (tmp_path, tmp_path / "checkpoints" / "best.ckpt"):
        refused(given, f"--model {given} is a run or a checkpoint of this project: give the checkpoint", capsys)


def test_a_model_that_reads_few_tokens_reads_the_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, longest=12)
    assert main(["explain", f"--model={folder}", "--text", " ".join(["dull"] * 30), TEXTS[1], "--method=rollout"]) == 0
    output, errors = capsys.readouterr()
    long, short = [json.loads(line) for line in output.splitlines()]
    assert "1 of 2 texts exceed 12 tokens; their end is not read" in errors
    assert len(long["tokens"]) == 10
    assert len(short["tokens"]) >= 3


def test_draws_belong_to_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path)
    method = "--method=smooth_gradient,gradient_shap,random"
    (single,) = explained(folder, capsys, "--text", TEXTS[0], method)
    _, first, second = explained(folder, capsys, "--text", TEXTS[1], TEXTS[0], TEXTS[0], method)
    for name, scores in single["scores"].items():
        assert first["scores"][name] == pytest.approx(scores, rel=1e-3, abs=1e-9)
        assert second["scores"][name] == pytest.approx(scores, rel=1e-3, abs=1e-9)


def test_of_several_labels_those_are_predicted_that_are_probable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path, problem_type="multi_label_classification")
    for bias, expected in ((-50.0, "none"), (50.0, "LABEL_0, LABEL_1, LABEL_2")):
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        torch.nn.init.constant_(model.classifier.bias, bias)
        model.save_pretrained(folder)
        (line,) = explained(folder, capsys, "--text", TEXTS[0], "--method=rollout")
        assert line["prediction"] == expected


def test_a_text_of_nothing_that_the_tokenizer_knows_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import Tokenizer, normalizers

    folder = made(tmp_path)
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.save(file)
    assert main(["explain", f"--model={folder}", "--text", "\u200b", "--method=rollout"]) == 2
    assert "has no token for this network" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_models_of_half_precision_have_integrated_gradients(tmp_path: Path, precision: torch.dtype) -> None:
    folder = made(tmp_path)
    processor = HuggingFaceProcessor(str(folder))
    processor.fit([])
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=precision)
    explainer = Explainer.from_network(TransformerNetwork.from_model(model), processor)
    (found, _) = explainer.explain(TEXTS, ["integrated_gradients"])
    assert torch.tensor(found.attributions["integrated_gradients"]).isfinite().all()


def test_a_mistake_in_python_is_one_sentence(tmp_path: Path) -> None:
    folder = str(made(tmp_path))
    network = TransformerNetwork.load(folder)
    processor = HuggingFaceProcessor(folder)
    with pytest.raises(InputError, match=r"has no tokens yet: call its fit\(\) first"):
        Explainer.from_network(network, processor)
    processor.fit([])
    words = WordProcessor()
    words.fit([f"word{number}" for number in range(500)])
    with pytest.raises(InputError, match=r"WordProcessor has 50\d tokens, and the network knows"):
        Explainer.from_network(network, words)
    explainer = Explainer.from_network(network, processor)
    for options, reason in (
        ({"texts": "a text"}, "texts is one string, 'a text': a list of them is expected"),
        ({"texts": TEXTS, "methods": "rollout"}, "methods is one string"),
        ({"texts": TEXTS, "batch_size": 0}, "batch_size, the texts read at once, must be at least 1, not 0"),
    ):
        with pytest.raises(InputError, match=reason):
            explainer.explain(**options)  # type: ignore[arg-type]
