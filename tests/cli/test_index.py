"""``lightning index``, and ``lightning explain --method lafa`` on what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_attn.attribution import LAFA
from lightning_attn.attribution.lafa import Nearest, NeighbourIndex, NeighbourText
from lightning_attn.attribution.lafa.kernels import Cosine
from lightning_attn.cli.commands import main
from lightning_attn.explain import Explainer, Explanation
from lightning_attn.visualization.explain_page import explain_page
from tests.helpers.commands import TINY, run, write_config

TEXTS = ["the plot was not dull .", "a superb cast", "the story was hollow and the music was rather tedious"]
EVIL = "<script>alert('1')</script> & \"more\""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return run("fit", write_config(folder), folder / "runs", "--trainer.max_epochs=2")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    return run("fit", write_config(folder), folder / "runs", "--trainer.max_epochs=2", "--seed_everything=5")


def command(run_folder: Path, output: Path, *options: str) -> list[str]:
    config = f"--config={run_folder}/config.yaml"
    return ["index", f"--ckpt_path={run_folder}/checkpoints/best.ckpt", config, f"--output={output}", *options]


@pytest.fixture(scope="module")
def index(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "folder"
    assert main(command(trained, folder)) == 0
    return folder


def explained(trained: Path, *options: str) -> list[str]:
    return ["explain", f"--ckpt_path={trained}/checkpoints/best.ckpt", "--method=attention,lafa", *options]


def test_the_index_is_that_of_the_training_texts(
    trained: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = NeighbourIndex.open(index)
    assert len(made) == TINY["data"]["init_args"]["train_size"]
    assert main(command(trained, tmp_path / "again", "--layer=pooled", "--base=input_gradient")) == 0
    assert "Index of 160 training texts" in capsys.readouterr().out
    description = NeighbourIndex.open(tmp_path / "again").description
    assert (description.layer, description.base) == ("pooled", "input_gradient")
    fewer = command(trained, tmp_path / "fewer", "--data.init_args.train_size=20", '--base_options={"samples": 2}')
    assert main([*fewer, "--base=smooth_gradient"]) == 0
    assert len(NeighbourIndex.open(tmp_path / "fewer")) == 20
    assert NeighbourIndex.open(tmp_path / "fewer").description.options == {"samples": 2}


def test_explain_borrows_and_shows_from_whom(
    trained: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    settings = ["--kernel=cosine", "--lambda=0.5", "--cutoff=1"]
    options = [f"--neighbours={index}", *settings, "--text", *TEXTS, EVIL, f"--output={page}"]
    assert main(explained(trained, *options)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    explainer = Explainer(trained / "checkpoints" / "best.ckpt")
    method = LAFA(index, Cosine(), Nearest(quantile=1), strength=0.5)
    batch = explainer.processor.batch([*TEXTS, EVIL])
    scores = method.attribute(explainer.network, batch)
    made = NeighbourIndex.open(index)
    names = {"negative": 0, "positive": 1}
    for row, line in enumerate(lines):
        assert line["scores"]["lafa"] == pytest.approx(scores[row][batch.inner[row]].tolist(), abs=1e-5)
        assert [item["distance"] for item in line["neighbours"]] == sorted(
            item["distance"] for item in line["neighbours"]
        )
        for item in line["neighbours"]:
            ids = [made.tokens[a:b].tolist() for a, b in zip(made.offsets, made.offsets[1:], strict=False)]
            shown = [" ".join(explainer.processor.tokens(each)) for each in ids]
            assert item["text"] in shown
            assert names[item["prediction"]] == made.predicted[shown.index(item["text"])]
    content = page.read_text()
    assert (
        content.count("LAFA borrowed from 10 training texts")
        == sum(len(line["neighbours"]) == 10 for line in lines)
        > 0
    )
    assert any(item["text"] in content for line in lines for item in line["neighbours"])
    assert "<script>alert" not in content


def test_texts_that_nobody_is_near_are_reported(
    trained: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    for file in index.iterdir():
        (lonely / file.name).write_bytes(file.read_bytes())
    np.save(lonely / "distances.npy", np.zeros_like(np.load(lonely / "distances.npy")))
    page = tmp_path / "page.html"
    assert main(explained(trained, f"--neighbours={lonely}", "--text", *TEXTS, f"--output={page}")) == 0
    output, errors = capsys.readouterr()
    assert "3 of 3 texts have no neighbour within the cut-off" in errors
    assert all(json.loads(line)["neighbours"] == [] for line in output.splitlines())
    assert page.read_text().count("no training text is near enough") == 3


def test_neighbours_on_the_page_are_escaped() -> None:
    neighbours = [NeighbourText(EVIL, EVIL, 0.5)]
    item = Explanation("a", "b", {"b": 1.0}, ["a"], {"lafa": [1.0]}, neighbours=neighbours)
    page = explain_page([item], "x")
    assert "alert('1')" not in page
    assert "LAFA borrowed from 1 training text<" in page
    assert "LAFA borrowed" not in explain_page([Explanation("a", "b", {"b": 1.0}, ["a"], {"lafa": [1.0]})], "x")


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert errors.startswith("error: ")
    assert not output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer=top"], "no layer 'top'"),
        (["--layer=hidden:1"], "no PretrainedEncoder"),
        (["--base=magic"], "no attribution method 'magic'"),
        (["--base_options={"], "--base_options must be JSON"),
        (["--base_options=[1]"], "must be a JSON object"),
        (["--max_tokens=0"], "--max_tokens must be at least 1, not 0"),
        (["--data.init_args.train_sise=3"], "train_sise"),
        (["--colour=red"], "colour"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(command(trained, tmp_path / "index", *options), message, capsys)
    assert not (tmp_path / "index").exists()


def test_what_is_missing_is_named(
    trained: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = f"--ckpt_path={trained}/checkpoints/best.ckpt"
    refused(["index", best], "--output", capsys)
    refused(["index", best, f"--output={tmp_path}/index"], "says nothing about data", capsys)
    refused(["index", "--ckpt_path=nowhere.ckpt", f"--output={tmp_path}/index"], "no checkpoint nowhere.ckpt", capsys)
    refused(explained(trained, "--text=a"), "--neighbours", capsys)
    refused(explained(trained, "--text=a", "--neighbours=nowhere"), "no index of neighbours at nowhere", capsys)
    refused(explained(trained, "--text=a", f"--neighbours={index}", "--kernel=gauss"), "no kernel 'gauss'", capsys)
    refused(explained(trained, "--text=a", f"--neighbours={index}", "--cutoff=0"), "must be in (0, 1], not 0", capsys)
    refused(explained(trained, "--text=a", f"--neighbours={index}", "--lambda=-1"), "0 or more, not -1", capsys)
    refused(
        [*explained(trained, "--text=a", f"--neighbours={index}"), "--method=attention"], "add it to --method", capsys
    )


def test_the_index_of_another_checkpoint_is_refused(
    trained: Path, other: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--neighbours={index}", "--text", *TEXTS]
    refused(explained(other, *options), f"The index {index} belongs to another checkpoint", capsys)
    refused(command(other, index), "holds an index of another network", capsys)


@pytest.mark.parametrize("name", ["index", "explain"])
def test_help_helps(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main([name, "--help"]) == 0
    text: Any = capsys.readouterr().out
    assert f"Example: lightning-attn {name} --ckpt_path" in text
    for option in {"index": ["--layer", "--base", "--config"], "explain": ["--neighbours", "--kernel"]}[name]:
        assert option in text
