"""Checkpoints and configurations that want code run: nothing runs, one sentence, exit status 2."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_attn.cli.commands import main
from lightning_attn.errors import InputError
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.commands import TINY, command, run, write_config

#: Executed where it is called, and where it is only imported.
RAN = Path("ran")
SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch ran"}}
UNNAMED = {"class_path": "unnamed_module.Thing"}
NETWORK = ("network",)
ENCODER = ("network", "init_args", "encoder")
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}


def scheduler(value: Any) -> dict[str, Any]:
    return {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": value}}


#: Where a checkpoint says something else than it should, and what. Outside fit, what is training's is not touched.
TRAINING: list[tuple[tuple[str, ...], Any]] = [
    (("optimizer",), SYSTEM),
    (("optimizer",), UNNAMED),
    (("optimizer",), "unnamed_module.thing"),
    (("optimizer",), str(SYSTEM)),
    (("optimizer",), {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": ".", "model": "x"}}),
    (("optimizer",), {"class_path": "torch.load", "init_args": {"f": "x"}}),
    (("optimizer",), {"class_path": "torch.os.system", "init_args": {"command": "touch ran"}}),
    (("optimizer",), {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}),
    (("optimizer",), {**ADAMW, "dict_kwargs": {"other": SYSTEM}}),
    (("optimizer",), {**ADAMW, "init_args": {"lr": SYSTEM}}),
    (("lr_scheduler",), SYSTEM),
    (("lr_scheduler",), UNNAMED),
    (("lr_scheduler",), scheduler("os.system")),
    (("lr_scheduler",), scheduler("unnamed_module.thing")),
    (("lr_scheduler",), scheduler([SYSTEM])),
    (("parameter_rules",), [SYSTEM]),
    (("parameter_rules",), {"one": [UNNAMED]}),
]
NETWORKS: list[tuple[tuple[str, ...], Any]] = [
    (NETWORK, SYSTEM),
    (NETWORK, UNNAMED),
    (NETWORK, "unnamed_module.Thing"),
    (ENCODER, SYSTEM),
    (ENCODER, UNNAMED),
    (ENCODER, {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}),
    (ENCODER, {"class_path": "PretrainedEncoder", "init_args": {"name_or_path": "./model"}}),
    (ENCODER, {"class_path": "PretrainedEncoder", "init_args": {"name_or_path": "./model", "config": {"a": [SYSTEM]}}}),
    ((*ENCODER, "init_args", "dropout"), SYSTEM),
    ((*ENCODER, "dict_kwargs"), {"other": {"deep": [SYSTEM]}}),
    ((*ENCODER, "class_path"), ["os.system"]),
    (("network", "init_args", "head"), SYSTEM),
]
OTHERS: list[tuple[tuple[str, ...], Any]] = [
    (("_class_path",), "os.system"),
    (("_class_path",), "unnamed_module.Thing"),
    (("mitigation",), SYSTEM),
    (("mitigation",), UNNAMED),
    (("mitigation",), "mitigation.yaml"),
    (
        ("mitigation",),
        {"class_path": "Compose", "init_args": {"mitigations": [{"class_path": "NoMitigation"}, SYSTEM]}},
    ),
    (("mitigation",), {"class_path": "InstanceWeighting", "init_args": {"classifier": SYSTEM}}),
    (("callbacks",), [SYSTEM]),
]


def named(cases: list[tuple[tuple[str, ...], Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("place", "value"), cases, ids=lambda part: str(part)[:60])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Configuration and checkpoint of a training."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder)
    return config, run("fit", config, folder / "runs", "--trainer.max_epochs=1") / "checkpoints" / "last.ckpt"


@pytest.fixture
def hostile(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, ...], Any], Path]:
    """Writes a checkpoint with something exchanged into the current folder, where a module waits to be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "import pathlib\npathlib.Path('ran').touch()\nclass Thing: pass\ndef thing(*_): return 1.0\n"
    Path("unnamed_module.py").write_text(code)
    Path("mitigation.yaml").write_text(yaml.safe_dump(SYSTEM))

    def write(place: tuple[str, ...], value: Any) -> Path:
        checkpoint = torch.load(trained[1], weights_only=True)
        part = checkpoint["hyper_parameters"]
        for name in place[:-1]:
            part = part[name]
        part[place[-1]] = copy.deepcopy(value)
        torch.save(checkpoint, "bad.ckpt")
        return Path("bad.ckpt")

    return write


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one sentence of a command that ran nothing."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "Traceback", "usage"))]
    assert len(lines) == 1
    assert not RAN.exists()
    assert "unnamed_module" not in sys.modules
    assert len(lines[0]) < 400
    return lines[0]


@named([*TRAINING, *NETWORKS, *OTHERS])
def test_fit_runs_nothing(
    trained: tuple[Path, Path], hostile: Any, capsys: pytest.CaptureFixture[str], place: tuple[str, ...], value: Any
) -> None:
    checkpoint = hostile(place, value)
    refused(capsys, command("fit", trained[0], Path("runs"), "--wandb=disabled", f"--ckpt_path={checkpoint}"))
    assert not list(Path().glob("runs/*"))


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
@named([NETWORKS[0], NETWORKS[4], OTHERS[1], OTHERS[2]])
def test_measuring_runs_nothing(
    trained: tuple[Path, Path],
    hostile: Any,
    capsys: pytest.CaptureFixture[str],
    subcommand: str,
    place: tuple[str, ...],
    value: Any,
) -> None:
    checkpoint = hostile(place, value)
    refused(capsys, command(subcommand, trained[0], Path("runs"), "--wandb=disabled", f"--ckpt_path={checkpoint}"))


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_what_trains_is_not_touched_outside_fit(trained: tuple[Path, Path], hostile: Any, subcommand: str) -> None:
    checkpoint = hostile(("optimizer",), SYSTEM)
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["lr_scheduler"] = UNNAMED
    torch.save(content, checkpoint)
    assert main(command(subcommand, trained[0], Path("runs"), "--wandb=disabled", f"--ckpt_path={checkpoint}")) == 0
    assert not RAN.exists()
    assert "unnamed_module" not in sys.modules


@named(NETWORKS)
def test_explain_runs_nothing(
    hostile: Any, capsys: pytest.CaptureFixture[str], place: tuple[str, ...], value: Any
) -> None:
    sentence = refused(capsys, ["explain", f"--ckpt_path={hostile(place, value)}", "--text", "a film"])
    if value is UNNAMED:
        assert "--trust unnamed_module" in sentence


@pytest.mark.parametrize(
    "arguments", ["index --output=index --config=CONFIG --ckpt_path=BAD", "heads --conllu=a.conllu -o=h --model=BAD"]
)
@named([NETWORKS[0], NETWORKS[4]])
def test_other_commands_run_nothing(
    trained: tuple[Path, Path],
    hostile: Any,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    place: tuple[str, ...],
    value: Any,
) -> None:
    Path("a.conllu").write_text("1\ta\t_\t_\t_\t_\t0\troot\t_\t_\n\n")
    checkpoint = str(hostile(place, value))
    refused(capsys, arguments.replace("CONFIG", str(trained[0])).replace("BAD", checkpoint).split())


@named([TRAINING[0], TRAINING[1], NETWORKS[0], NETWORKS[4], OTHERS[2]])
def test_python_runs_nothing(hostile: Any, place: tuple[str, ...], value: Any) -> None:
    checkpoint = hostile(place, value)
    with pytest.raises(InputError, match=r"os\.system|--trust unnamed_module"):
        AttentionClassifier.load_from_checkpoint(checkpoint)
    if place[0] == "network":
        with pytest.raises(InputError, match=r"os\.system|--trust unnamed_module"):
            TrainedNetwork.read(checkpoint)
    assert not RAN.exists()
    assert "unnamed_module" not in sys.modules


@pytest.mark.parametrize("argument", ["optimizer", "lr_scheduler", "mitigation", "network", "parameter_rules"])
@pytest.mark.parametrize("section", ["init_args", "dict_kwargs"])
def test_a_configuration_calls_only_what_belongs_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argument: str,
    section: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = copy.deepcopy(TINY["model"])
    model.setdefault(section, {})[argument] = [SYSTEM] if argument == "parameter_rules" else SYSTEM
    refused(capsys, command("fit", write_config(tmp_path, model=model), tmp_path / "runs", "--wandb=disabled"))


@pytest.mark.parametrize("argument", ["callbacks", "logger", "strategy", "profiler", "plugins"])
def test_a_trainer_calls_only_what_belongs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**TINY["trainer"], argument: [SYSTEM] if argument in ("callbacks", "plugins") else SYSTEM}
    refused(capsys, command("fit", write_config(tmp_path, trainer=settings), tmp_path / "runs", "--wandb=disabled"))


def test_index_makes_the_data_alone(trained: tuple[Path, Path], hostile: Any) -> None:
    config = yaml.safe_load(trained[0].read_text())
    config["model"]["init_args"].update(optimizer=SYSTEM, lr_scheduler=SYSTEM)
    config["trainer"]["callbacks"] = [SYSTEM]
    Path("bad.yaml").write_text(yaml.safe_dump(config))
    assert main(["index", "--config=bad.yaml", f"--ckpt_path={trained[1]}", "--output=index"]) == 0
    assert not RAN.exists()
