"""A file that a person opens is replaced in one move, or stays as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric.plugins.io import torch_io
from matplotlib.figure import Figure

from lightning_attn.cli.commands import main
from lightning_attn.ops.files import replacing, save_figure, write_text
from lightning_attn.runs.checkpoint_file import read_checkpoint
from tests.helpers.commands import write_config


def test_files_are_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "ü\n")
    save_figure(Figure(), tmp_path / "a.svg")
    assert (tmp_path / "a.txt").read_bytes() == "ü\n".encode()
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_what_fails_leaves_the_older_file_whole(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("older")

    def write() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("half of a new")
            raise error

    with pytest.raises(type(error)) as raised:
        write()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(raised.value, OSError):
        assert raised.value.filename == str(path)


def test_a_full_disk_is_one_sentence_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,step,val/accuracy\n0,1,0.5\n")
    page = tmp_path / "report.html"
    page.write_text("older")

    def full(path: Path, *_: object, **__: object) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["report", str(run), "--output", str(page)]) == 2
    assert capsys.readouterr().err == f"error: {page} could not be written: No space left on device.\n"
    assert page.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run"]


def test_a_closed_pipe_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    runs = []
    for number in range(3):
        runs.append(tmp_path / str(number))
        runs[-1].mkdir()
        (runs[-1] / "metrics.csv").write_text("epoch,step,test/auroc,test/instances/auroc\n0,1,0.99,0.5\n")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lightning_attn", "silent-failures", *map(str, runs)]
    process = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert process.returncode == 2
    assert process.stderr == "error: Who read the output has closed it, so the rest of it was not written.\n"


def test_a_full_disk_leaves_the_checkpoints_of_earlier_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = torch_io._atomic_save

    def full(checkpoint: dict[str, Any], path: str) -> None:
        if checkpoint["epoch"] == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, path)

    monkeypatch.setattr(torch_io, "_atomic_save", full)
    assert (
        main(["fit", "--config", str(write_config(tmp_path)), f"--trainer.default_root_dir={tmp_path / 'runs'}"]) == 2
    )
    (folder,) = tmp_path.glob("runs/*/checkpoints")
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert read_checkpoint(folder / "last.ckpt")["epoch"] == 1
    assert "ckpt could not be written: No space left on device.\n" in capsys.readouterr().err


def test_a_training_whose_reader_goes_away_ends_in_order(tmp_path: Path) -> None:
    arguments = ["--config", str(write_config(tmp_path)), f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lightning_attn", "fit", *arguments]
    process = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("error: Who read the output has closed it")
    assert "Traceback" not in process.stderr
