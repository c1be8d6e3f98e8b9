from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from lightning_attn import attribution
from lightning_attn.cli.commands import main
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer, Explanation
from lightning_attn.visualization.explain_page import explain_page
from tests.helpers.commands import run, write_config

TEXTS = ["the plot was not dull .", "a superb cast", "the story was hollow and the music was rather tedious"]
EVIL = "<script>alert('1')</script> & \"more\""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    return run("fit", write_config(folder), folder / "runs", "--trainer.max_epochs=2") / "checkpoints" / "best.ckpt"


def test_scores_are_those_of_the_methods(checkpoint: Path) -> None:
    explainer = Explainer(checkpoint)
    (found,) = explainer.explain(TEXTS[:1])
    batch = explainer.processor.batch(TEXTS[:1])
    assert found.tokens == TEXTS[0].split()
    for name in ("attention", "gradient", "occlusion"):
        scores = attribution.get(name).attribute(explainer.network, batch)[0][batch.inner[0]]
        assert found.attributions[name] == pytest.approx(scores.tolist(), abs=1e-6)
    probabilities = torch.softmax(explainer.network(batch).logits[0], -1)
    assert list(found.probabilities.values()) == pytest.approx(probabilities.tolist(), abs=1e-6)
    assert found.prediction == ["negative", "positive"][int(probabilities.argmax())]


def test_a_text_is_explained_alike_alone_and_among_others(checkpoint: Path) -> None:
    explainer = Explainer(checkpoint)
    together = explainer.explain(TEXTS * 3, batch_size=4)
    for number, item in enumerate(together):
        (alone,) = explainer.explain([TEXTS[number % 3]])
        assert (item.text, item.tokens, item.prediction) == (alone.text, alone.tokens, alone.prediction)
        for name in item.attributions:
            assert item.attributions[name] == pytest.approx(alone.attributions[name], abs=1e-5)


def test_json_and_page(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["explain", f"--ckpt_path={checkpoint}", "--text", TEXTS[0], EVIL, "--output", str(page)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == [TEXTS[0], EVIL]
    for line in lines:
        assert set(line["scores"]) == {"attention", "gradient", "occlusion"}
        assert {len(scores) for scores in line["scores"].values()} == {len(line["tokens"])}
    assert "<script>alert" not in page.read_text()


def test_a_file_and_the_standard_input(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(TEXTS) + "\n")
    assert main(["explain", f"--ckpt_path={checkpoint}", "--file", str(file), "--method=attention"]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == TEXTS
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXTS[1].encode())))
    assert main(["explain", f"--ckpt_path={checkpoint}", "--file=-", f"--json={tmp_path / 'out.jsonl'}"]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == TEXTS[1]


class Reader(HTMLParser):
    """Checks that tags are closed, and collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "onerror", "onclick")]
        self.scripts += tag == "script"
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_whole_escaped_and_fetches_nothing() -> None:
    item = Explanation(
        text=EVIL,
        prediction=EVIL,
        probabilities={EVIL: 0.75, "other": 0.25},
        tokens=[EVIL, "good"],
        attributions={"attention": [0.25, 0.75], EVIL: [-1.0, 0.5]},
    )
    page = explain_page([item], EVIL)
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.fetched == []
    assert reader.scripts == 1  # the page's own
    assert "alert('1')" not in page
    assert "http" not in page
    assert "75.0 %" in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", " "], "empty"),
        ([], "nothing to explain"),
        (["--text", "a", "--method=magic"], "the methods are attcat, attention, "),
        (["--file", "{folder}/empty.txt"], "holds no text"),
        (["--file", "{folder}/nowhere.txt"], "No such file"),
        (["--file", "{folder}/latin.txt"], "not UTF-8"),
        (["--text", "a", "--batch_size=0"], "at least 1"),
        (["--text", "caf\udce9"], "not valid in the encoding"),
        (["--text", "a", "--output={folder}/no/page.html"], "there is no folder"),
        (["--text", "a", "--json={folder}/no/out.jsonl"], "there is no folder"),
        (["--text", "a", "--json={folder}"], "is a folder"),
        (["--file={folder}/latin-1/../texts.txt", "--json={folder}/texts.txt"], "--json and --file are the same file"),
        (["--text", "a", "--output={checkpoint}"], "--output and --ckpt_path are the same file"),
        (["--text", "a", "--output={folder}/x", "--json={folder}/x"], "--output and --json are the same file"),
        (["--txt", "a"], "--txt"),
    ],
)
def test_bad_input_is_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "texts.txt").write_text("a superb cast")
    (tmp_path / "latin-1").mkdir()
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    arguments = [option.format(folder=tmp_path, checkpoint=checkpoint) for option in options]
    assert main(["explain", f"--ckpt_path={checkpoint}", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert errors.startswith("error: ")


def test_a_checkpoint_without_a_description_says_how_to_load_it(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["hyper_parameters"]
    torch.save(content, tmp_path / "python.ckpt")
    with pytest.raises(InputError, match="load_from_checkpoint"):
        Explainer(tmp_path / "python.ckpt")


def test_outputs_are_checked_before_the_model_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--ckpt_path=nowhere.ckpt", "--text=a", f"--output={tmp_path}/no/page.html"]
    assert main(["explain", *options]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_text_may_hold_characters_that_end_lines_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes("a superb\u2028cast\r\na dull\x0cplot\n".encode())
    options = [f"--ckpt_path={checkpoint}", "--file", str(tmp_path / "texts.txt"), "--method=attention"]
    assert main(["explain", *options, f"--json={tmp_path / 'out.jsonl'}"]) == 0
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == ["a superb\u2028cast", "a dull\x0cplot"]


def test_streams_are_utf8_in_any_locale(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "lightning_attn", "explain", f"--ckpt_path={checkpoint}", "--file=-"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command, input="caf\u00e9 \u2192\n".encode(), capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout.decode("utf-8"))["text"] == "caf\u00e9 \u2192"


def test_old_names_are_still_read_with_a_warning() -> None:
    item = Explanation("text", "a", {"a": 1.0}, ["text"], {"attention": [1.0]})
    with pytest.warns(DeprecationWarning, match=r"Explanation\.attributions"):
        assert item.scores == item.attributions
    assert list(item.as_dict())[4] == "scores", "in JSON files nothing changes"
