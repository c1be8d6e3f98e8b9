"""``lightning heads``: a file that ``lightning explain --method mask_lrp`` takes, from runs and from folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from lightning_attn.attribution import MaskLRP
from lightning_attn.attribution.heads.heads_file import read_heads
from lightning_attn.cli.commands import main
from lightning_attn.explain import Explainer
from lightning_attn.networks import TransformerNetwork
from tests.helpers.commands import TINY, run, write_config
from tests.helpers.planted_heads import CONLLU, planted, planted_words, save_tokenizer

pytest.importorskip("conllu", reason="reading CoNLL-U needs conllu, which is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of Hugging Face whose attention heads look one back, one ahead, at themselves and nine ahead."""
    folder = tmp_path_factory.mktemp("planted")
    save_tokenizer(folder)
    planted([[-1, 1], [0, 9]]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def conllu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parses") / "some.conllu"
    path.write_text(CONLLU)
    return path


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the planted model with a learning rate of 0: its attention heads are still where they were."""
    place = tmp_path_factory.mktemp("trained")
    processor = {"class_path": "HuggingFaceProcessor", "init_args": {"name_or_path": str(folder), "max_length": 8}}
    data = {**TINY["data"], "init_args": {**TINY["data"]["init_args"], "processor": processor}}
    network = {"class_path": "TransformerNetwork", "init_args": {"name_or_path": str(folder)}}
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    model = {"class_path": "AttentionClassifier", "init_args": {"network": network, "optimizer": optimizer}}
    return run("fit", write_config(place, model=model, data=data), place / "runs", "--trainer.max_epochs=1")


def command(model: Path, conllu: Path, output: Path, *options: str) -> list[str]:
    return ["heads", f"--model={model}", "--conllu", str(conllu), f"--output={output}", *options]


def test_a_folder_gets_a_file_a_picture_and_controls(
    folder: Path, conllu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--criteria=positional", "--controls=2", "--seed=3"]
    assert main(command(folder, conllu, tmp_path / "heads.json", *options)) == 0
    output, errors = capsys.readouterr()
    # nine ahead there is mostly nothing
    network = TransformerNetwork.load(str(folder))
    assert read_heads(tmp_path / "heads.json", network) == [[0, 1], [0]]
    content = json.loads((tmp_path / "heads.json").read_text())
    assert content["model"]["kind"] == "bert"
    assert content["found"]["reasons"] == {"0.0": ["positional -1"], "0.1": ["positional +1"], "1.0": ["positional 0"]}
    assert content["found"]["relations"]["amod"]["dependencies"] == 2
    assert content["found"]["criteria"] == {"positional": {"share": 0.8}}
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")
    for seed in (3, 4):
        drawn = read_heads(tmp_path / f"heads.random{seed}.json", network)
        assert [len(layer) for layer in drawn] == [2, 1]
    assert "3 of 4 attention heads are important (75%)" in output
    assert "at the token before" in output
    assert "Left out: sentences that are repeated: 1." in errors
    assert f"explain --model {folder} --method mask_lrp --heads" in errors


def test_syntactic_heads_beat_every_fixed_offset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    save_tokenizer(model)
    planted_words([{"red": "dog"}, {"dog": "red"}, {"red": "see"}]).save_pretrained(model)
    sentences = []
    for between in (0, 1, 2):  # "red the the dog see": no offset hits more than one of three
        rows = [("red", "amod", between + 2), *[("the", "det", between + 2)] * between]
        rows += [("dog", "nsubj", between + 3), ("see", "root", 0)]
        lines = [f"{n}\t{form}\t_\tX\t_\t_\t{head}\t{name}\t_\t_\n" for n, (form, name, head) in enumerate(rows, 1)]
        sentences.append("".join(lines))
    (tmp_path / "red.conllu").write_text("\n".join(sentences))
    arguments = command(model, tmp_path / "red.conllu", tmp_path / "heads.json", "--criteria=syntactic")
    expected = {"to_head": [[0]], "to_dependent": [[1]], "either": [[0, 1]]}
    for direction, heads in expected.items():
        assert main([*arguments, f"--direction={direction}", f"--picture={tmp_path}/map.svg"]) == 0
        assert read_heads(tmp_path / "heads.json") == heads
        assert "33.3% at" in capsys.readouterr().out
    assert json.loads((tmp_path / "heads.json").read_text())["found"]["reasons"] == {
        "0.0": ["syntactic amod"],
        "0.1": ["syntactic < amod"],
    }
    assert "<svg" in (tmp_path / "map.svg").read_text()
    # a margin that hits of all three do not reach
    refused([*arguments, "--margin=0.7"], "reaches 0.67", capsys)


def test_a_run_gets_a_file_that_explain_takes(
    trained: Path, folder: Path, conllu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = tmp_path / "heads.json"
    assert main(command(trained, conllu, heads)) == 0
    assert read_heads(heads) == [[0, 1], [0]]
    # the same from the checkpoint itself; the sentence of 13 tokens is read whole, though training cut at 8
    checkpoint = trained / "checkpoints" / "best.ckpt"
    assert main(command(checkpoint, conllu, tmp_path / "same.json")) == 0
    assert json.loads((tmp_path / "same.json").read_text()) == json.loads(heads.read_text())
    assert json.loads(heads.read_text())["found"]["sentences"] == 2
    capsys.readouterr()
    explain = ["explain", f"--ckpt_path={checkpoint}", "--text=the red dogs see", "--method=mask_lrp"]
    assert main([*explain, f"--heads={heads}"]) == 0
    line = json.loads(capsys.readouterr().out)
    explainer = Explainer(checkpoint)
    batch = explainer.processor.batch(["the red dogs see"])
    scores = MaskLRP([[0, 1], [0]]).attribute(explainer.network, batch)[0][batch.inner[0]]
    assert line["scores"]["mask_lrp"] == pytest.approx(scores.tolist(), abs=1e-5)
    # with a learning rate of 0 the run's weights are those of the folder, and so its file fits
    assert main(command(folder, conllu, tmp_path / "folder.json", "--criteria=positional")) == 0
    assert main([*explain, f"--heads={tmp_path}/folder.json"]) == 0


def test_the_heads_of_another_model_are_refused(
    trained: Path, folder: Path, conllu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    save_tokenizer(other)
    model = planted([[-1, 1], [0, 9]])
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.self.key.weight.mul_(1.01)
    model.save_pretrained(other)
    assert main(command(other, conllu, tmp_path / "heads.json")) == 0
    explain = ["explain", f"--ckpt_path={trained}/checkpoints/best.ckpt", "--text=the cat", "--method=mask_lrp"]
    refused([*explain, f"--heads={tmp_path}/heads.json"], "those of another model (with other weights)", capsys)


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("Left out", "warning"))]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--margin=1"], "must be in [0, 1), not 1"),
        (["--offset_share=0"], "must be in (0, 1), not 0"),
        (["--direction=up"], "no direction 'up'"),
        (["--criteria=both"], "no criterion 'both'; the criteria are positional, syntactic"),
        (["--criteria=,"], "no criterion ''"),
        (["--criteria=syntactic", "--relations=iobj,csubj"], "has no dependency called iobj or csubj"),
        (["--criteria=syntactic", "--ignore_special"], "No attention head of the model is important"),
        (["--picture=map.gif"], "must end in .png, .svg, .pdf"),
        (["--picture=nowhere/map.png"], "there is no folder nowhere"),
        (["--max_tokens=0"], "--max_tokens must be at least 1"),
        (["--controls=-1"], "--controls must be at least 0"),
        (["--colour=red"], "colour"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str],
    message: str,
    folder: Path,
    conllu: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(command(folder, conllu, tmp_path / "heads.json", *options), message, capsys)
    assert not list(tmp_path.iterdir())


def test_wrong_files_are_refused(
    folder: Path, conllu: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "heads.json"
    broken = tmp_path / "broken.conllu"
    broken.write_text(CONLLU.replace("nsubj\t_\t_", "nsubj\t_", 1))
    refused(command(folder, broken, output), f"Line 5 of {broken} has 9 columns where CoNLL-U has 10", capsys)
    refused(command(folder, tmp_path / "nowhere", output), "nowhere: No such file", capsys)
    refused(command(tmp_path / "nowhere.ckpt", conllu, output), "no checkpoint", capsys)
    refused(command(tmp_path / "nowhere", conllu, output), "no tokenizer to be loaded from", capsys)
    empty = tmp_path / "run" / "checkpoints"
    empty.mkdir(parents=True)
    refused(command(empty.parent, conllu, output), "has no checkpoint: neither best.ckpt nor last.ckpt", capsys)
    refused(command(folder, conllu, conllu), "--output and --conllu are the same file", capsys)
    short = tmp_path / "short"
    save_tokenizer(short)
    planted([[-1, 1]], longest=10).save_pretrained(short)
    config = AutoConfig.from_pretrained(short)
    assert config.max_position_embeddings == 10
    assert main(command(short, conllu, output)) == 0
    assert "sentences that are longer than the model can read: 1" in capsys.readouterr().err
    wide = tmp_path / "wide"
    save_tokenizer(wide)
    model = planted([[-1, 1]])
    model.resize_token_embeddings(10)
    model.save_pretrained(wide)
    refused(command(wide, conllu, output), "has 18 tokens and its model 10", capsys)


def test_networks_without_self_attention_are_refused(
    conllu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pooled = run("fit", write_config(tmp_path), tmp_path / "runs", "--trainer.max_epochs=1")
    refused(
        command(pooled, conllu, tmp_path / "heads.json"), "is a PooledNetwork, which has no attention heads", capsys
    )


def test_a_tokenizer_without_characters_is_refused(
    folder: Path, conllu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((folder / "config.json").read_text())
    network = {
        "class_path": "TransformerNetwork",
        "init_args": {"name_or_path": "tiny", "config": {**config, "vocab_size": 120, "max_position_embeddings": 64}},
    }
    model = {"class_path": "AttentionClassifier", "init_args": {"network": network}}
    words = run("fit", write_config(tmp_path, model=model), tmp_path / "runs", "--trainer.max_epochs=1")
    refused(
        command(words, conllu, tmp_path / "heads.json"),
        "split by a WordProcessor, which does not tell the characters of a token",
        capsys,
    )


def test_help_helps(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["heads", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example: lightning-attn heads --model" in text
    for option in ("--conllu", "--relations", "--direction", "--margin", "--offset_share", "--controls", "--picture"):
        assert option in text
