"""A run removes nothing but what it made itself: a failure once emptied the folder that the command was given in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import WandbLogger

from lightning_attn.callbacks import AttentionTableCallback, PredictionsFile
from lightning_attn.cli.commands import main
from lightning_attn.errors import InputError
from lightning_attn.runs.folder import discard, folder_of, is_first_process, new_run_folder
from tests.helpers.commands import write_config
from tests.helpers.runs import tiny_data, tiny_module, trainer

CONTENT = {
    "thesis.txt": b"years of work",
    "config.yaml": b"mine",
    "wandb/run.txt": b"mine",
    "runs/old/config.yaml": b"old",
}
FAILURES = {
    "help": ["fit", "--help-all"],
    "unknown option": ["fit", "--config", "{config}", "--trainer.max_epoch=3"],
    "missing config": ["fit", "--config", "nowhere.yaml"],
    "no config": ["fit"],
    "missing checkpoint": ["test", "--config", "{config}", "--ckpt_path=nowhere.ckpt"],
    "refused argument": ["fit", "--config", "{config}", "--data.init_args.train_size=0"],
    "no such accelerator": ["fit", "--config", "{config}", "--trainer.accelerator=nonsense"],
    "missing data": ["fit", "--config", "{config}", "--data=SSTDataModule", "--data.init_args.path=nowhere"],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "home"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", str(tmp_path / "cache"))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_touches_nothing(name: str, home: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    status = main([option.format(config=config) for option in FAILURES[name]] + ["--wandb=disabled"][: name != "help"])
    assert status == (0 if name == "help" else 2)
    assert files(home) == CONTENT
    assert [path.name for path in (home / "runs").iterdir()] == ["old"]


def test_other_files_in_a_run_folder_stay(tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path, "run")
    (folder / "config.yaml").write_text("")
    (folder / "notes.txt").write_text("mine")
    discard(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    assert len({new_run_folder(tmp_path, "run") for _ in range(5)}) == 5


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="default_root_dir"):
        new_run_folder(tmp_path / "file", "run")


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_process_knows_itself(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], first: bool
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first


@pytest.mark.parametrize("verb", ["validate", "predict"])
def test_a_trainer_from_python_replaces_nothing_of_another_one(verb: str, tmp_path: Path) -> None:
    data = tiny_data()
    data.setup("predict")
    module = tiny_module(data)

    def work(run: Trainer) -> None:
        getattr(run, verb)(module, data)

    def fresh() -> Trainer:
        return trainer(tmp_path, callbacks=[AttentionTableCallback(max_examples=2), PredictionsFile()])

    first, name = fresh(), "attention/val.html" if verb == "validate" else "predictions.jsonl"
    work(first)
    (tmp_path / name).write_text("kept")
    with pytest.warns(UserWarning, match="results of another run"):
        work(fresh())
    assert (tmp_path / name).read_text() == "kept"
    assert (tmp_path / "version_1" / name).stat().st_size > 100
    work(first)  # its own it may replace
    assert (tmp_path / name).read_text() != "kept"
    assert not (tmp_path / "version_2").exists()


def test_a_wandb_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    loggers = [WandbLogger(save_dir=tmp_path, project="mine", version=name) for name in ("a", "b")]
    for logger in loggers:
        logger._experiment = wandb.sdk.lib.RunDisabled()
        logger._experiment.id = logger._id
    folders = [folder_of(trainer(tmp_path, logger=logger)) for logger in loggers]
    assert folders == [tmp_path / "mine" / "a", tmp_path / "mine" / "b"]
