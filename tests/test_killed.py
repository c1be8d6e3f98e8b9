"""SIGKILL at a random moment: the same command goes on, and ends with what it would have ended with.

One moment for each command; ``make kill-test`` tries twenty.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from lightning_attn.cli.commands import LAUNCHER, main
from lightning_attn.data import TextDataModule
from lightning_attn.errors import InputError
from tests.helpers.commands import assert_same_training, command, last, run, start, write_config
from tests.helpers.planted_heads import CONLLU, planted, save_tokenizer

TIMES = int(os.environ.get("KILLS", "1"))
PATIENCE = 300  # seconds
#: Forks of a process that has imported everything and run nothing: the moments fall into the work.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.test_killed", "lightning_attn.cli.training", "lightning_attn.cli.index"])


@dataclass
class Case:
    """A command, and what is to come of it.

    Attributes:
        arguments: Of the command, that writes into a folder; with what is there, of the command that goes on.
        content: What came of it, to be compared.
        begun: Whether it has written something.
    """

    arguments: Callable[[Path], list[str]]
    content: Callable[[Path], dict[str, Any]]
    begun: Callable[[Path], bool] = lambda folder: any(folder.iterdir())

    def start(self, folder: Path, largest: int | None = None) -> ForkServerProcess:
        """Start it; ``largest`` bytes of a file are all that the disk takes."""
        arguments = self.arguments(folder), folder.with_suffix(".log"), largest
        process = FORKS.Process(target=work, args=arguments, daemon=True)
        process.start()
        return process

    def finish(self, folder: Path) -> float:
        """Run it to its end; returns how long that took once it had begun."""
        process = self.start(folder)
        began = self.wait(process, folder)
        process.join(PATIENCE)
        assert process.exitcode == 0, folder.with_suffix(".log").read_text()
        return time.monotonic() - began

    def wait(self, process: ForkServerProcess, folder: Path) -> float:
        while not self.begun(folder) and process.is_alive():
            time.sleep(0.002)
        return time.monotonic()


def work(arguments: list[str], log: Path, largest: int | None) -> None:
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if arguments[0] == "cache":
        data = TextDataModule(arguments[1], cache_dir=arguments[2])
        try:
            data.prepare_data()
            data.setup("fit")
        except InputError as error:
            print(f"error: {error}")
            sys.exit(2)
        return
    sys.exit(main(arguments))


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime_ns)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def weights(path: Path) -> dict[str, Any]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: value.tolist() for name, value in state.items() if isinstance(value, torch.Tensor)}


def ensemble(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "ensemble.json").read_text())
    return {**weights(folder / "ensemble.ckpt"), "metrics": [member["metrics"] for member in record["members"]]}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    place = tmp_path_factory.mktemp("cases")
    config = write_config(place)
    trained = run("fit", config, place / "runs", "--trainer.max_epochs=1")
    best = f"--ckpt_path={trained}/checkpoints/best.ckpt"
    save_tokenizer(place / "model")
    planted([[-1, 1], [0, 9]]).save_pretrained(place / "model")
    (place / "some.conllu").write_text(CONLLU)
    drawn = random.Random(0)
    rows = (f"{' '.join(drawn.choices('abcdefghij', k=20))},{number % 2}\n" for number in range(10_000))
    (place / "table.csv").write_text("text,label\n" + "".join(rows))

    def fit(folder: Path) -> list[str]:
        resumed = [f"--ckpt_path={path}" for path in checkpoints(folder)[-1:]]
        return command("fit", config, folder, "--wandb=disabled", *resumed)

    def many(folder: Path) -> list[str]:
        options = ["--members=2", "--jobs=2", "--trainer.max_epochs=2", "--wandb=disabled"]
        return ["ensemble", f"--config={config}", f"--output={folder}", *options]

    slow = [
        "--max_tokens=40",
        "--base=smooth_gradient",
        '--base_options={"samples": 2}',
        "--data.init_args.train_size=64",
    ]
    index = ["index", best, f"--config={trained}/config.yaml", *slow]
    heads = ["heads", f"--model={place}/model", f"--conllu={place}/some.conllu", "--controls=2"]
    table = str(place / "table.csv")
    return {
        "fit": Case(fit, lambda folder: weights(checkpoints(folder)[-1].with_name("best.ckpt"))),
        "ensemble": Case(many, ensemble),
        "index": Case(lambda folder: [*index, f"--output={folder}"], files),
        "heads": Case(
            lambda folder: [*heads, f"--output={folder}/heads.json"],
            lambda folder: {name: content for name, content in files(folder).items() if name.endswith(".json")},
            lambda folder: True,
        ),
        "cache": Case(lambda folder: ["cache", table, str(folder)], files),
    }


@pytest.fixture(scope="module")
def unbroken(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, float]]:
    """The folder of a command that nobody killed, and how long that took."""
    ended: dict[str, tuple[Path, float]] = {}

    def end(name: str) -> tuple[Path, float]:
        if name not in ended:
            folder = tmp_path_factory.mktemp(name)
            ended[name] = folder, cases[name].finish(folder)
        return ended[name]

    return end


#: An ensemble is killed once in the tests of its command already.
MOMENTS = [
    (name, moment)
    for name in ("fit", "index", "heads", "cache", "ensemble")
    for moment in range(TIMES if name != "ensemble" or TIMES > 1 else 0)
]


@pytest.mark.parametrize(("name", "moment"), MOMENTS)
def test_the_same_command_goes_on_to_the_same_result(
    name: str,
    moment: int,
    cases: dict[str, Case],
    unbroken: Callable[[str], tuple[Path, float]],
    tmp_path: Path,
) -> None:
    case, (expected, seconds) = cases[name], unbroken(name)
    folder = tmp_path / "folder"
    folder.mkdir()
    older = '{"layers": [[0], []]}\n'
    if name == "heads":
        (folder / "heads.json").write_text(older)
    victim = case.start(folder)
    case.wait(victim, folder)
    time.sleep(random.Random(f"{name} {moment}").uniform(0, seconds))
    victim.kill()
    victim.join()
    if name == "heads":
        assert (folder / "heads.json").read_text() in (older, (expected / "heads.json").read_text())
    case.finish(folder)
    assert case.content(folder) == case.content(expected)
    if name == "fit":
        assert_same_training(*(checkpoints(place)[-1].parents[1] for place in (folder, expected)))


@pytest.mark.parametrize(("name", "largest"), [("fit", 9_000), ("index", 3_000), ("heads", 2_000), ("cache", 50_000)])
def test_a_full_disk_is_one_sentence_and_no_harm(
    name: str,
    largest: int,
    cases: dict[str, Case],
    unbroken: Callable[[str], tuple[Path, float]],
    tmp_path: Path,
) -> None:
    case, folder = cases[name], tmp_path / "folder"
    folder.mkdir()
    process = case.start(folder, largest)
    process.join(PATIENCE)
    errors = [line for line in folder.with_suffix(".log").read_text().splitlines() if "rror" in line]
    assert process.exitcode == 2, errors
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert "written" in errors[0]
    case.finish(folder)
    assert case.content(folder) == case.content(unbroken(name)[0])


def test_a_member_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    slow = ("--trainer.callbacks+=tests.helpers.commands.Slow", "--trainer.max_epochs=99", "--wandb=disabled")
    orphan = {**os.environ, LAUNCHER: str(os.getppid())}  # not the process that starts it
    process = start(*command("fit", config, tmp_path / "runs", *slow), env=orphan)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (-15, 143), errors
    assert not psutil.pid_exists(process.pid)
    assert not checkpoints(tmp_path / "runs") or last(checkpoints(tmp_path / "runs")[-1].parents[1])["epoch"] < 98
