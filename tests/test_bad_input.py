"""One clear sentence, exit status 2, no traceback; problems of the data themselves are tested in ``tests/data``."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_attn.cli.commands import main
from tests.helpers.commands import command, run, start, write_config

SCHEDULER = "--model.init_args.lr_scheduler"
ENCODER = "--model.init_args.network.init_args.encoder"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def checkpoint(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("fit", config, tmp_path_factory.mktemp("t"), "--trainer.max_epochs=2") / "checkpoints" / "last.ckpt"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "Traceback", "usage"))]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--trainer.max_epoch=3"], ["trainer.max_epoch", "did you mean trainer.max_epochs"]),
        (["--foo=3"], ["'foo'"]),
        (["trainer.max_epochs=3"], ["'trainer.max_epochs=3' is no option", "did you mean --trainer.max_epochs=3?"]),
        (
            [f"{ENCODER}.class_path=BiLST"],
            ["'BiLST'", "did you mean BiLSTM", "BiLSTM, CNN, PretrainedEncoder, TokenMLP"],
        ),
        ([f"{ENCODER}.class_path=nothing.Encoder"], ["nothing"]),
        ([f"{ENCODER}.init_args.hidden=3"], ["'hidden'", "hidden_size"]),
        ([f"{ENCODER}.init_args.values=some"], ["'some'", "'contextual' or 'local'"]),
        (["--model.init_args.optimizer.init_args.lr=fast"], ["lr", "'fast'", "float"]),
        (["--trainer.max_epochs=many"], ["trainer.max_epochs", "'many'", "int"]),
        (["--data=Synth"], ["'Synth'", "SyntheticReviewsDataModule"]),
        (["--data.init_args.train_size=0"], ["train_size", "at least 2"]),
        (["--trainer.callbacks+=FaithfulnessCallbck"], ["did you mean FaithfulnessCallback"]),
        (
            ["--model.init_args.mitigation=RandomPretraining", "--model.init_args.mitigation.init_args.epochs=0"],
            ["error: RandomPretraining needs", "epochs"],
        ),
        (
            [f"{ENCODER}=CNN", f"{ENCODER}.init_args.kernel_sizes=[2]"],
            ["error: CNN: kernel_sizes must be odd, got [2]."],
        ),
        (
            ["--trainer.callbacks+=ShortcutProbe", "--trainer.callbacks.share=7"],
            ["error: ShortcutProbe needs a share in (0, 1], not 7.0."],
        ),
        (["--data=SSTDataModule"], ["SSTDataModule needs path", "--data.init_args.path"]),
        (["--data=SSTDataModule", "--data.init_args.path=nowhere"], ["nowhere"]),
        (["--config=nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
        (["--wandb=sometimes"], ["sometimes", "offline"]),
        (["--seed_everything=-1"], ["--seed_everything", "between 0 and 4294967295", "-1"]),
        (["--model.init_args.optimizer.init_args.lr=-1"], ["torch.optim.AdamW", "Invalid learning rate: -1"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else None,
)
def test_a_wrong_configuration(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], parts: list[str]
) -> None:
    sentence = refused(capsys, *command("fit", config, tmp_path / "runs", "--wandb=disabled"), *options)
    for part in parts:
        assert part in sentence
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("trainer: {max_epoch: 3}", "did you mean trainer.max_epochs"),
        ("model: {init_args: {network: {init_args: {encodr: CNN}}}}", "did you mean encoder"),
        (
            "model: {init_args: {mitigation: {class_path: Compose, init_args: {mitigations: [RandomPretrain]}}}}",
            "did you mean RandomPretraining",
        ),
        ("trainer: [\n half: {", "config"),
        ("only words", "only words"),
    ],
)
def test_a_wrong_file(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, part: str
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(content)
    assert part in refused(capsys, *command("fit", config, tmp_path / "runs", "--config", str(overlay)))


@pytest.mark.parametrize(
    ("option", "part"),
    [
        (
            "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val_loss",
            "EarlyStopping monitors 'val_loss'",
        ),
        (
            "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.monitor=val/acc",
            "did you mean val/auroc or val/accuracy?",
        ),
        (
            f"{SCHEDULER}=pytorch_lightning.cli.ReduceLROnPlateau {SCHEDULER}.monitor=loss",
            "ReduceLROnPlateau monitors 'loss', which nothing logs",
        ),
    ],
)
def test_what_is_monitored_must_be_logged(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, part: str
) -> None:
    sentence = refused(capsys, *command("fit", config, tmp_path / "runs", "--wandb=disabled"), *option.split())
    assert part in sentence
    assert not list(tmp_path.glob("runs/*"))


def test_a_configuration_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"model: \xff\xfe")
    assert "bytes.yaml is not a text in UTF-8" in refused(capsys, "fit", f"--config={tmp_path}/bytes.yaml")


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_random_weights_are_not_measured(
    config: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], subcommand: str
) -> None:
    arguments = command(subcommand, config, tmp_path / "runs", "--wandb=disabled")
    assert "random weights: give --ckpt_path RUN/checkpoints/best.ckpt" in refused(capsys, *arguments)
    folder = checkpoint.parents[1]
    arguments = command(subcommand, folder / "config.yaml", tmp_path / "runs", "--wandb=disabled")
    assert f"--ckpt_path {folder}/checkpoints/best.ckpt." in refused(capsys, *arguments)
    assert not list(tmp_path.glob("runs/*"))


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "fit, validate, test, predict, explain" in refused(capsys, "fot")


class Code:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return (os.mkdir, (str(self.target), 0o777))


@pytest.mark.parametrize("subcommand", ["fit", "test", "explain"])
def test_checkpoints_that_cannot_be_used(
    config: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], subcommand: str
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "truncated.ckpt").write_bytes(checkpoint.read_bytes()[:2000])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("<html>")
    torch.save({"state_dict": {}, "run": Code(ran)}, tmp_path / "code.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(Code(ran)))
    torch.save({"state_dict": {}, "epoch": 0}, tmp_path / "other.ckpt")
    (tmp_path / "metrics.csv.ckpt").write_text("epoch,step,val/loss\n0,9,0.5\n")
    (tmp_path / "config.yaml.ckpt").write_text("# pytorch_lightning==2.6\nseed_everything: 0\ntrainer:\n  a: 1\n")
    (tmp_path / "notes.ckpt").write_text("}}}}, (((( .... 0000")
    parts = {
        "nowhere": "other.ckpt",  # what there is in that folder
        "truncated": "truncated, damaged",
        "empty": "truncated, damaged",
        "text": "truncated, damaged",
        "metrics.csv": "truncated, damaged",
        "config.yaml": "truncated, damaged",
        "notes": "truncated, damaged",
        "code": "could run code",
        "pickle": "cannot be read",
        "other": "not written by an AttentionClassifier",
    }
    base = ["explain", "--text=a"] if subcommand == "explain" else command(subcommand, config, tmp_path / "runs")
    for name, part in parts.items():
        assert part in refused(capsys, *base, f"--ckpt_path={tmp_path / name}.ckpt")
    assert not ran.exists()
    assert not list(tmp_path.glob("runs/*"))


DAMAGES: dict[str, Any] = {
    **{
        f"{part} is text": lambda content, part=part: content.update({part: "x"})
        for part in (
            *("state_dict", "schema", "data", "hyper_parameters", "callbacks", "loops", "optimizer_states"),
            *("lr_schedulers", "epoch", "global_step"),
        )
    },
    "weights are whole numbers": lambda content: _exchange(content, lambda value: value.long()),
    "weights are complex": lambda content: _exchange(content, lambda value: value.to(torch.complex64)),
    "weights are words": lambda content: _exchange(content, lambda value: "weights"),
    "weights are few": lambda content: content["state_dict"].clear(),
    "weights have other shapes": lambda content: _exchange(content, lambda value: value[:1]),
    "names are numbers": lambda content: content["state_dict"].update({3: torch.ones(1)}),
    "a schema without classes": lambda content: content["schema"].pop("num_classes"),
    "a schema of words": lambda content: content["schema"].update(num_classes="two"),
    "a schema below 0": lambda content: content["schema"].update(vocabulary_size=-5),
    "a schema with more": lambda content: content["schema"].update(other=1),
    "no network": lambda content: content["hyper_parameters"].update(network=3),
    "no processor": lambda content: content["data"].update(processor=3),
}


def _exchange(content: dict[str, Any], change: Any) -> None:
    for name, value in content["state_dict"].items():
        if name.endswith("weight") and value.ndim == 2:
            content["state_dict"][name] = change(value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("subcommand", ["fit", "test", "explain"])
def test_parts_of_a_checkpoint_of_another_kind(
    config: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subcommand: str,
    damage: str,
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    DAMAGES[damage](content)
    torch.save(content, tmp_path / "damaged.ckpt")
    base = ["explain", "--text=a"] if subcommand == "explain" else command(subcommand, config, tmp_path / "runs")
    refused(capsys, *base, f"--ckpt_path={tmp_path}/damaged.ckpt")


def test_a_run_folder_that_cannot_be_made(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "default_root_dir" in refused(capsys, *command("fit", config, tmp_path / "file"))


def test_several_processes_say_it_once(config: Path, tmp_path: Path) -> None:
    options = ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true", "--wandb=disabled"]
    wrong = ["--data=SSTDataModule", f"--data.init_args.path={tmp_path / 'nowhere'}"]
    process = start(*command("fit", config, tmp_path / "runs", *options, *wrong))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.count("error: ") == 1
    assert "Traceback" not in errors
