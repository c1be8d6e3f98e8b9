from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Trainer

from lightning_attn.cli.commands import main
from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.networks import PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.commands import TINY, command, last, run, start, write_config

OPINIONS = [("the", "positive"), ("film", "negative"), ("not", "positive")]  # in every vocabulary


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("fit", config, tmp_path_factory.mktemp("trained"), "--trainer.max_epochs=2")


def best(folder: Path) -> str:
    return f"--ckpt_path={folder}/checkpoints/best.ckpt"


def test_help_comes_at_once_and_names_every_command() -> None:
    began = time.monotonic()
    arguments = [sys.executable, "-m", "lightning_attn", "--help"]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert time.monotonic() - began < 5
    for name in ("fit", "validate", "test", "predict", "explain", "report"):
        assert f"lightning-attn {name} " in output


@pytest.mark.parametrize("name", ["fit", "validate", "test", "predict"])
def test_the_help_of_a_command_fits_on_a_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120


def test_every_option_is_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help-all"]) == 0
    assert "--trainer.gradient_clip_val" in capsys.readouterr().out
    assert main(["fit", "--data.help", "SyntheticReviewsDataModule"]) == 0
    assert "default_tokens" in capsys.readouterr().out


def test_the_version_says_which_distribution_this_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lightning-attn-faithful ")


def test_a_run_leaves_its_folder(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {"config.yaml", "metrics.csv", "checkpoints"}
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for name in ("train/loss", "val/loss", "val/accuracy", "val/f1", "val/auroc", "mitigation/phase"):
        assert all(row[name] for row in rows)


def test_the_configuration_is_whole_and_can_be_run_again(trained: Path, tmp_path: Path) -> None:
    recorded = yaml.safe_load((trained / "config.yaml").read_text())
    assert recorded["model"]["init_args"]["network"]["init_args"]["encoder"]["init_args"]["dropout"] == 0.3
    assert "negation" in recorded["data"]["init_args"]  # a default
    again = run("fit", trained / "config.yaml", tmp_path)
    one, other = (last(folder)["state_dict"] for folder in (trained, again))
    weights = [name for name, value in one.items() if isinstance(value, torch.Tensor)]
    assert weights
    assert all(torch.equal(one[name], other[name]) for name in weights)


def test_nothing_is_left_where_the_command_is_given(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert main(command("fit", config, tmp_path / "runs", "--trainer.max_epochs=2", "--tensorboard=true")) == 0
    assert not list((tmp_path / "here").iterdir())
    (folder,) = (tmp_path / "runs").iterdir()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert list(folder.glob("tensorboard/events*"))


def with_wandb_logger(folder: Path, class_path: str = "WandbLogger") -> Path:
    logger = {"class_path": class_path, "init_args": {"project": "mine", "log_model": True}}
    return write_config(folder, trainer={**TINY["trainer"], "max_epochs": 2, "logger": logger})


def test_a_wandb_logger_of_the_users_own_goes_into_the_run_folder(tmp_path: Path) -> None:
    config = with_wandb_logger(tmp_path)
    (tmp_path / "here").mkdir()
    # A process of its own, in a folder of its own: wandb reads its settings once a process.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("WANDB_MODE", None)
    for number in (1, 2):
        process = start(*command("fit", config, tmp_path / f"runs{number}"), cwd=tmp_path / "here", env=environment)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "failed" not in errors
        assert not list((tmp_path / "here").iterdir())
        assert len(list(tmp_path.glob(f"runs{number}/*/wandb/offline-run-*"))) == 1
        (config,) = tmp_path.glob(f"runs{number}/*/config.yaml")  # the second run is that of the first one's record
    assert len(list(tmp_path.glob("runs1/*/wandb/offline-run-*"))) == 1


@pytest.mark.parametrize("class_path", ["WandbLogger", "tests.helpers.loggers.Refusing"])
def test_disabled_drops_a_configured_wandb_logger(tmp_path: Path, class_path: str) -> None:
    folder = run("fit", with_wandb_logger(tmp_path, class_path), tmp_path / "runs")
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "metrics.csv", "checkpoints"}


def test_a_wandb_that_does_not_start_does_not_stop_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_wandb_logger(tmp_path, "tests.helpers.loggers.Refusing")
    assert main(command("fit", config, tmp_path / "runs", "--wandb=offline")) == 0
    assert "without Weights & Biases" in capsys.readouterr().err
    assert list(tmp_path.glob("runs/*/checkpoints/last.ckpt"))


def test_the_installed_command_finds_classes_of_the_current_folder(config: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "lightning-attn"
    if not script.is_file():
        pytest.skip("the package is not installed here")
    (tmp_path / "my_package.py").write_text(
        "from lightning_attn.networks import PooledNetwork\n\n\nclass GRUNetwork(PooledNetwork): ...\n"
    )
    options = ["--wandb=disabled", "--trainer.max_epochs=2", "--model.init_args.network=my_package.GRUNetwork"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(script), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )

    done = call(*command("fit", config, tmp_path / "runs", *options), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (checkpoint,) = tmp_path.glob("runs/*/checkpoints/best.ckpt")
    explain = ["explain", f"--ckpt_path={checkpoint}", "--text", "a superb cast"]
    assert "--trust my_package" in call(*explain, cwd=tmp_path).stderr  # no checkpoint decides what is imported
    explain += ["--trust", "my_package"]
    assert call(*explain, cwd=tmp_path).returncode == 0
    (tmp_path / "elsewhere").mkdir()
    done = call(*explain, cwd=tmp_path / "elsewhere")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "my_package" in line


def test_test_and_validate_write_their_figures(config: Path, trained: Path, tmp_path: Path) -> None:
    for name, stage in (("test", "test"), ("validate", "val")):
        folder = run(name, config, tmp_path / name, best(trained))
        with (folder / "metrics.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert float(row[f"{stage}/accuracy"]) >= 0
        assert not (folder / "checkpoints").exists()


def test_a_checkpoint_reads_other_data_with_its_own_vocabulary(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "other.jsonl"
    rows = [{"text": f"the plot was {word} zyx", "label": label, "split": "test"} for word, label in OPINIONS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = {"class_path": "TextDataModule", "init_args": {"path": str(data), "split": "split"}}
    folder = run("predict", write_config(tmp_path, data=other), tmp_path / "runs", best(trained))
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in lines] == [
        ["<s>", "the", "plot", "was", word, "<unk>", "</s>"] for word, _ in OPINIONS
    ]


def assert_predictions(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(40))
    for line in lines:
        assert line["prediction"] == max(line["probabilities"], key=line["probabilities"].get)
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert len(line["attention"]) == len(line["tokens"])
        assert sum(line["attention"]) == pytest.approx(1, abs=1e-4)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "predictions.jsonl"}


def test_predictions_hold_every_example_once_and_in_order(config: Path, trained: Path, tmp_path: Path) -> None:
    assert_predictions(run("predict", config, tmp_path, best(trained)))


def test_two_processes_share_a_folder_and_its_predictions(config: Path, trained: Path, tmp_path: Path) -> None:
    options = ["--wandb=disabled", "--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true"]
    process = start(*command("predict", config, tmp_path, *options, best(trained)))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (folder,) = tmp_path.iterdir()
    assert_predictions(folder)


def test_the_checkpoint_decides_and_says_so(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("test", config, tmp_path, best(trained), "--model.init_args.mitigation=NoMitigation")
    output = capsys.readouterr().out
    assert "mitigation is Compose(RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=12))" in output
    assert "not NoMitigation" in output
    run("test", config, tmp_path, best(trained))
    assert "The checkpoint decides" not in capsys.readouterr().out


def test_a_broken_logger_does_not_stop_a_training(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ("--trainer.logger=tests.helpers.loggers.Broken", f"--trainer.logger.init_args.save_dir={tmp_path / 'x'}")
    folder = run("fit", config, tmp_path / "runs", "--trainer.max_epochs=2", *broken)
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert capsys.readouterr().err.count("Broken failed") == 1


def test_a_checkpoint_from_python_can_be_tested(config: Path, tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    network = PooledNetwork(BiLSTM(embedding_size=8, hidden_size=4, values="local"))
    trainer.fit(AttentionClassifier(network), datamodule=SyntheticReviewsDataModule(160, 40, 40))
    trainer.save_checkpoint(tmp_path / "python.ckpt")
    run("test", config, tmp_path / "runs", f"--ckpt_path={tmp_path}/python.ckpt", "--model.init_args.mitigation=null")
