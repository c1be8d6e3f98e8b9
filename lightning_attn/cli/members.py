"""Training the members of an ensemble: each a ``fit`` in a process of its own, several at a time."""

from __future__ import annotations

import collections
import json
import os
import queue
import shlex
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from joblib import Parallel, delayed  # type: ignore[import-untyped]  # it has no types

from lightning_attn.callbacks.checkpoint import is_finished
from lightning_attn.cli.commands import LAUNCHER
from lightning_attn.errors import InputError
from lightning_attn.ops.files import write_text
from lightning_attn.runs.checkpoint_file import read_checkpoint
from lightning_attn.runs.folder import CHECKPOINTS, CONFIG

FINISHED = "finished.json"
OUTPUT = "output.txt"
_USER_ERROR = 2  # exit status of a command that the user's input was wrong for


@dataclass
class Member:
    """One training of an ensemble.

    Attributes:
        number: Place in the ensemble, from 0.
        seed: Of everything that is drawn in the training.
        folder: Where its run folders are made.
        arguments: What ``fit`` is called with, all but the checkpoint to go on from.
    """

    number: int
    seed: int
    folder: Path
    arguments: list[str]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"member {self.number} (seed {self.seed})"

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end."""
        return (self.folder / FINISHED).is_file()

    @property
    def record(self) -> dict[str, str]:
        """Of a finished member: the name of its ``run``, and the ``command`` that finished it."""
        return dict(json.loads((self.folder / FINISHED).read_text()))

    @property
    def run(self) -> Path:
        """The folder of a finished member's run."""
        return self.folder / self.record["run"]

    @property
    def checkpoint(self) -> Path:
        """What it goes into the ensemble with: the best checkpoint of its finished run, without validation the last.

        Raises:
            InputError: It has none any more.
        """
        folder = self.run / CHECKPOINTS
        for name in ("best.ckpt", "last.ckpt"):
            if (folder / name).is_file():
                return folder / name
        raise InputError(
            f"{self.name.capitalize()} has no checkpoint in {folder}; give the same command again to train it anew."
        )

    @property
    def runs(self) -> list[Path]:
        """The folders of its runs, the latest last: going on where a run was killed is another run."""
        return [path.parent for path in _by_time(self.folder.glob(f"*/{CONFIG}"))]

    def command(self) -> list[str]:
        """How to train it, or to go on where its last run was killed."""
        resume = ["--ckpt_path", str(last[-1])] if (last := self._last_checkpoints()) else []
        return [sys.executable, "-m", "lightning_attn", "fit", *self.arguments, *resume]

    def recognise(self) -> None:
        """Believe what lies in its folder, whenever an earlier command was killed: its checkpoints decide.

        A training that ended is a finished one, even if nobody was left to write that down; one whose checkpoint is
        gone is none.
        """
        last = self._last_checkpoints()
        if self.finished and not any((self.run / CHECKPOINTS).glob("*.ckpt")):
            (self.folder / FINISHED).unlink()
        if not self.finished and last and is_finished(read_checkpoint(last[-1])):
            self.record_end([sys.executable, "-m", "lightning_attn", "fit", *self.arguments])

    def record_end(self, command: Sequence[str]) -> None:
        """Say that it has finished, in which of its runs: the latest that has a checkpoint."""
        run = [*self.runs, *(path.parents[1] for path in self._last_checkpoints())][-1]
        content = {"run": run.name, "command": shlex.join(command)}
        write_text(self.folder / FINISHED, json.dumps(content, indent=1) + "\n")

    def _last_checkpoints(self) -> list[Path]:
        return _by_time(self.folder.glob(f"*/{CHECKPOINTS}/last.ckpt"))


@dataclass
class Failure:
    """A member that was not trained to its end.

    Attributes:
        member: Which.
        sentence: What it said.
        users: Whether the user's input was wrong: the other members would fail in the same way.
    """

    member: Member
    sentence: str
    users: bool


@dataclass
class Launcher:
    """Runs ``fit`` for several members at a time, by joblib.

    The processes end with this one, even if it is killed. Each gets its share of the cores (``OMP_NUM_THREADS``,
    unless the user has set it), and where there are GPUs, one of them for itself (``CUDA_VISIBLE_DEVICES``).

    Attributes:
        jobs: Processes at a time.
    """

    jobs: int
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def train(self, members: Sequence[Member]) -> Generator[tuple[Member, Failure | None], None, None]:
        """Train those that have not finished, and give each as it ends.

        After a mistake of the user no other member is started. Whatever ends the iteration, an interrupt or an error,
        ends the processes too; what they have trained so far stays, and the next call goes on from there.
        """
        devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for number in range(self.jobs):
            gpus = visible_gpus()
            devices.put(gpus[number % len(gpus)] if gpus else None)
        waiting = [member for member in members if not member.finished]
        parallel = Parallel(n_jobs=self.jobs, backend="threading", return_as="generator_unordered", pre_dispatch="all")
        results = parallel(delayed(self._train)(member, devices) for member in waiting)
        try:
            # `yield from` would close joblib's generator before the processes have ended, and joblib would warn.
            for ended in results:  # noqa: UP028
                yield ended
        finally:
            self._stop()
            collections.deque(results, maxlen=0)

    def _train(self, member: Member, devices: queue.SimpleQueue[str | None]) -> tuple[Member, Failure | None]:
        device = devices.get()
        try:
            if self._stopped.is_set():
                return member, Failure(member, "It was not started.", users=False)
            failure = self._run(member, device)
            if failure is not None and failure.users:
                self._stopped.set()
            return member, failure
        finally:
            devices.put(device)

    def _run(self, member: Member, device: str | None) -> Failure | None:
        environment = {"OMP_NUM_THREADS": str(max(1, cores() // self.jobs)), **os.environ, LAUNCHER: str(os.getpid())}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        member.folder.mkdir(parents=True, exist_ok=True)
        command = member.command()
        with (member.folder / OUTPUT).open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
            self._running.append(process)
            status = process.wait()
        if status == 0:
            member.record_end(command)
            return None
        return Failure(member, _last_sentence(member.folder / OUTPUT, status), users=status == _USER_ERROR)

    def _stop(self) -> None:
        self._stopped.set()
        for process in self._running:
            if process.poll() is None:
                process.terminate()  # Lightning ends in order
        for process in self._running:
            process.wait()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls each GPU that this process may use."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _by_time(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def _last_sentence(path: Path, status: int) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if said:
        return said[-1]
    last = f": {lines[-1]}" if lines else ""
    return f"It ended with status {status}{last}; its output is in {path}."
