"""Labels, words and names that give orders: nothing that reaches a person's eyes obeys them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lightning_attn.cli.commands import main
from lightning_attn.ops.text import visible
from tests.helpers.commands import write_config

LABELS = ("\x1b[31mneg\x9b2J\u202evit", "p$\\frac{$s\x1b]0;owned\x07")
WORD = "gr\u2066eat\x1b[2J$\\bad{$"


def obeyed(text: str) -> list[str]:
    """The lines that do not show all that they hold."""
    return [ascii(line) for line in text.split("\n") if visible(line.replace("\r", "")) != line.replace("\r", "")]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_nothing_obeys_what_a_text_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows((f"the film {number % 7} was {WORD} {number % 2}", LABELS[number % 2]) for number in range(60))
    init_args = {"path": str(tmp_path / "reviews.csv"), "batch_size": 16}
    config = write_config(tmp_path, data={"class_path": "TextDataModule", "init_args": init_args})
    callbacks = ["AttentionTableCallback", "AgreementCallback", "CounterfactualCallback", "ShortcutProbe"]
    options = [f"--trainer.default_root_dir={tmp_path / 'runs'}", "--trainer.max_epochs=2", "--config", str(config)]
    options += [f"--trainer.callbacks+={name}" for name in callbacks]
    assert main(["fit", *options]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    for command in ("test", "predict"):
        assert main([command, *options, "--ckpt_path", checkpoint]) == 0
    page = tmp_path / "page.html"
    assert main(["explain", "--ckpt_path", checkpoint, "--text", f"was {WORD}", "--output", str(page)]) == 0
    name = "a$\\frac{$b\x1b[31m"
    assert main(["report", str(run), "--names", name, "--output", str(tmp_path / "report.html")]) == 0
    assert main(["report", str(run), "--names", name, "--output", str(tmp_path / "report.png")]) == 0
    output = capfd.readouterr()
    assert not obeyed(output.out)
    assert not obeyed(output.err)
    assert "frac" in output.out or "neg" in output.out, "the names are there"
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".html", ".json", ".jsonl", ".svg", ".yaml")]
    files += tmp_path.glob("runs/*/metrics.csv")
    assert {"html", "json", "jsonl", "svg", "yaml", "csv"} == {path.suffix[1:] for path in files}
    for path in files:
        assert not obeyed(path.read_text(encoding="utf-8")), path
    (predictions,) = tmp_path.rglob("predictions.jsonl")
    assert {json.loads(line)["prediction"] for line in predictions.open()} <= set(LABELS), "no letter is lost"
