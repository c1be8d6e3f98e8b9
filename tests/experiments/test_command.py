"""The experiments on the command line: an overlay on any configuration."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_attn.cli.commands import main
from tests.helpers.commands import TINY, command, run, write_config

OVERLAY = Path(__file__).parents[2] / "configs" / "experiments" / "attention_is_not_explanation.yaml"
NAMES = ("agreement", "permutation", "adversarial", "counterfactual")
MODEL = copy.deepcopy(TINY["model"])
MODEL["init_args"]["mitigation"] = None


def config_in(folder: Path, **data: Any) -> Path:
    faithfulness = {"class_path": "FaithfulnessCallback", "init_args": {"metrics": ["attention/entropy"]}}
    sections = {
        "model": MODEL,
        "data": {**TINY["data"], "init_args": {**TINY["data"]["init_args"], **data}},
        "trainer": {**TINY["trainer"], "max_epochs": 1, "callbacks": [faithfulness]},
    }
    return write_config(folder, **sections)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return config_in(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def checkpoint(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("fit", config, tmp_path_factory.mktemp("fit")) / "checkpoints" / "last.ckpt"


def other(folder: Path, checkpoint: Path | str) -> list[str]:
    source = {"class_path": "OtherCheckpoint", "init_args": {"checkpoint": str(checkpoint)}}
    callback = {"class_path": "CounterfactualCallback", "init_args": {"sources": ["Uniform", source]}}
    (folder / "other.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    return ["--config", str(folder / "other.yaml")]


def test_the_overlay_adds_the_experiments_to_what_is_there(
    config: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("test", config, tmp_path, "--config", str(OVERLAY), f"--ckpt_path={checkpoint}")
    callbacks = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["callbacks"]
    kinds = [callback["class_path"].rsplit(".", 1)[-1] for callback in callbacks]
    assert kinds == [
        "FaithfulnessCallback",
        "AgreementCallback",
        "PermutationCallback",
        "AdversarialCallback",
        "CounterfactualCallback",
    ]
    with (folder / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["test/attention/entropy"]
    output = capsys.readouterr().out.replace("\n", "")
    for name in NAMES:
        assert float(row[f"test/explanation/{name}/examples"]) == 40
        assert len(json.loads((folder / f"explanation/test/{name}.json").read_text())["rows"]) == 40
        assert {path.suffix for path in folder.glob(f"explanation/test/{name}.*")} == {".json", ".png", ".svg"}
        assert f"explanation/test/{name}.json" in output


def test_a_model_is_its_own_other(config: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = [*other(tmp_path, checkpoint), f"--ckpt_path={checkpoint}"]
    folder = run("test", config, tmp_path / "runs", *options)
    found = json.loads((folder / "explanation/test/counterfactual.json").read_text())
    assert found["summary"]["other/output_change"] == pytest.approx(0, abs=1e-6)
    assert found["summary"]["other/same_prediction"] == 1
    assert found["settings"]["sources"]["other"]["checkpoint"] == str(checkpoint)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train_size": 20}, "vocabulary size 94, this model on data with 113"),
        ({"seed": 5}, "trained with another vocabulary"),
    ],
    ids=["another size", "the same size"],
)
def test_another_vocabulary_is_refused(
    config: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    data: dict[str, Any],
    message: str,
) -> None:
    theirs = run("fit", config_in(tmp_path, **data), tmp_path / "theirs") / "checkpoints" / "last.ckpt"
    options = [*other(tmp_path, theirs), f"--ckpt_path={checkpoint}", "--wandb=disabled"]
    capsys.readouterr()
    assert main([*command("test", config, tmp_path / "runs"), *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"The attention of {theirs} cannot be used here" in line
    assert message in line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.callbacks.splits=[train]", "'train'"),
        ("--trainer.callbacks.permutations=0", "PermutationCallback needs permutations of at least 1, not 0"),
        ("--trainer.callbacks+=PermutationCallback", "Two PermutationCallbacks would log"),
    ],
)
def test_a_mistake_is_one_sentence(
    config: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    options = ["--wandb=disabled", f"--ckpt_path={checkpoint}", "--trainer.callbacks+=PermutationCallback", option]
    assert main([*command("test", config, tmp_path / "runs"), *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line


def test_a_missing_checkpoint_of_the_other_model(
    config: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*other(tmp_path, "nowhere.ckpt"), "--wandb=disabled", f"--ckpt_path={checkpoint}"]
    assert main([*command("test", config, tmp_path / "runs"), *options]) == 2
    assert "There is no checkpoint nowhere.ckpt" in capsys.readouterr().err
