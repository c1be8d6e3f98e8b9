"""Checkpoints, configurations and import paths of 0.1.0; this goes with `lightning_attn.compat` in the next release.

``data_0_1_0`` was written by 0.1.0: ``NAME.yaml`` was trained for two epochs, ``NAME.run.yaml`` is what the run
recorded and ``NAME.ckpt`` its last checkpoint; ``figures.json`` is what ``test``, a resumed ``fit`` and ``explain``
gave.
"""

from __future__ import annotations

import csv
import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_attn.cli.commands import main
from lightning_attn.compat import new_class_path
from lightning_attn.networks.trained import load_network
from lightning_attn.runs.checkpoint_file import read_checkpoint
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.commands import command, run

DATA = Path(__file__).parent / "data_0_1_0"
FIGURES: dict[str, Any] = json.loads((DATA / "figures.json").read_text())
both = pytest.mark.parametrize("name", ["text", "bags"])


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@both
@pytest.mark.parametrize("config", ["yaml", "run.yaml"])
def test_a_checkpoint_gives_the_same_figures(name: str, config: str, tmp_path: Path) -> None:
    folder = run("test", DATA / f"{name}.{config}", tmp_path, f"--ckpt_path={DATA / name}.ckpt")
    assert rows(folder)[-1] == pytest.approx(FIGURES[name]["test"], rel=1e-4, abs=1e-6)


@both
@pytest.mark.parametrize("config", ["yaml", "run.yaml"])
def test_a_training_goes_on(name: str, config: str, tmp_path: Path) -> None:
    options = ["--trainer.max_epochs=4", f"--ckpt_path={DATA / name}.ckpt"]
    assert rows(run("fit", DATA / f"{name}.{config}", tmp_path, *options)) == [
        pytest.approx(expected, rel=1e-4, abs=1e-6) for expected in FIGURES[name]["resumed"]
    ]


def test_texts_are_explained_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [explained["text"] for explained in FIGURES["explained"]]
    methods = "attention,gradient,integrated_gradients"
    capsys.readouterr()
    assert main(["explain", f"--ckpt_path={DATA}/text.ckpt", "--text", *texts, f"--method={methods}"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(texts)
    for line, expected in zip(lines, FIGURES["explained"], strict=True):
        assert line["probabilities"] == pytest.approx(expected["probabilities"])
        for method, scores in expected["scores"].items():
            assert line["scores"][method] == pytest.approx(scores, rel=1e-3, abs=1e-7)


@both
def test_python_loads_it(name: str) -> None:
    network = load_network(DATA / f"{name}.ckpt")
    module = AttentionClassifier.load_from_checkpoint(DATA / f"{name}.ckpt")
    for key, value in network.state_dict().items():
        assert torch.equal(value, module.network.state_dict()[key])


def test_old_names_in_a_configuration_are_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.fast_dev_run=true", "--model.init_args.network.init_args.encoder", "Average"]
    encoder = "--model.init_args.network.init_args.encoder.init_args.embedding_size=4"
    assert main(command("fit", DATA / "text.yaml", tmp_path, "--wandb=disabled", *options, encoder)) == 0
    errors = capsys.readouterr().err
    for old, new in {
        "MLPHead": "MLPClassifier",
        "Average": "TokenMLP",
        "Even": "Uniform",
        "lightning_attn.modules.AttentionClassifier": "lightning_attn.tasks.AttentionClassifier",
        "lightning_attn.attention.Dirichlet": "lightning_attn.mitigations.Dirichlet",
    }.items():
        assert f"warning: {old} is now called {new}" in errors


def test_no_old_name_is_left_in_what_is_written(tmp_path: Path) -> None:
    folder = run("fit", DATA / "text.yaml", tmp_path, "--trainer.max_epochs=1")
    stored = read_checkpoint(folder / "checkpoints" / "last.ckpt")["hyper_parameters"]
    for text in (repr(stored), (folder / "config.yaml").read_text()):
        assert not any(
            old in text for old in ("MLPHead", "Even", ".modules.", ".optimisation.", ".attention.Dirichlet")
        )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("adversaries", "EdgeSolver"),
        ("attention", "Even"),
        ("attention", "FrozenAttention"),
        ("attention", "Shuffled"),
        ("attention_heads", "Syntactic"),
        ("attention_heads", "head_statistics"),
        ("attention_heads", "heads_figure"),
        ("attribution.kernels", "Cosine"),
        ("bag_figure", "bag_figure"),
        ("callbacks", "OtherCheckpoint"),
        ("callbacks.experiments", "AgreementRecord"),
        ("encoders", "Average"),
        ("highlight", "highlight_html"),
        ("modules", "AttentionClassifier"),
        ("modules", "QuestionAnswerer"),
        ("neighbours", "NeighbourIndex"),
        ("neighbours", "Nearest"),
        ("networks", "MLPHead"),
        ("networks.heads", "Head"),
        ("optimisation", "WarmupLinear"),
        ("report.silent_failures", "Thresholds"),
        ("report.silent_failures_page", "scatter"),
    ],
)
def test_an_old_import_works_and_names_the_new_one(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now called") as caught:
        value = getattr(importlib.import_module(f"lightning_attn.{module}"), name)
    new = str(caught[0].message).split(" is now called ")[1].split(";")[0]
    home, _, attribute = new.rpartition(".")
    with warnings.catch_warnings(action="error"):
        assert getattr(importlib.import_module(home), attribute) is value
    if isinstance(value, type):
        assert new_class_path(f"lightning_attn.{module}.{name}") == new


def test_other_names_are_still_unknown() -> None:
    with pytest.raises(AttributeError, match="has no attribute"):
        importlib.import_module("lightning_attn.modules").Nothing  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("lightning_attn.nothing")
