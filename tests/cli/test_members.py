"""The launcher of members: who runs where, and what is said of whoever fails."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest

from lightning_attn.cli.members import Launcher, Member, cores
from lightning_attn.errors import InputError

REPORT = """
import json, os, pathlib, sys, time
place = pathlib.Path(sys.argv[1])
seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
(place / "seen.json").write_text(json.dumps({**seen, "began": time.time()}))
(place / "run").mkdir()
(place / "run" / "config.yaml").write_text("")
time.sleep(0.2)
{ending}
"""


class Script(Member):
    """Runs a few lines in place of a training."""

    ending = ""

    def command(self) -> list[str]:
        return [sys.executable, "-c", REPORT.replace("{ending}", self.ending), str(self.folder)]


def scripts(folder: Path, *endings: str) -> list[Script]:
    made = []
    for number, ending in enumerate(endings):
        script = Script(number, number + 10, folder / str(number), [])
        script.ending = ending
        made.append(script)
    return made


def seen(member: Member) -> dict:
    return json.loads((member.folder / "seen.json").read_text())


def test_each_has_a_gpu_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    members = scripts(tmp_path, "", "", "", "")
    assert [failure for _, failure in Launcher(2).train(members)] == [None] * 4
    assert {seen(member)["CUDA_VISIBLE_DEVICES"] for member in members} == {"4", "7"}
    for device in ("4", "7"):
        began = sorted(seen(member)["began"] for member in members if seen(member)["CUDA_VISIBLE_DEVICES"] == device)
        assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(began))


def test_they_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("lightning_attn.cli.members.cores", lambda: 6)
    (member,) = scripts(tmp_path, "")
    list(Launcher(2).train([member]))
    assert seen(member)["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    (other,) = scripts(tmp_path / "other", "")
    list(Launcher(2).train([other]))
    assert seen(other)["OMP_NUM_THREADS"] == "5"
    assert cores() >= 1


def test_finished_members_are_not_run_again(tmp_path: Path) -> None:
    members = scripts(tmp_path, "", "")
    (members[0].folder).mkdir()
    (members[0].folder / "finished.json").write_text('{"run": "run", "command": ""}')
    assert [member.number for member, _ in Launcher(1).train(members)] == [1]
    assert members[1].finished
    assert members[1].run == members[1].folder / "run"


def test_a_crash_does_not_stop_the_others(tmp_path: Path) -> None:
    members = scripts(tmp_path, "raise ZeroDivisionError('oh no')", "")
    found = {member.number: failure for member, failure in Launcher(1).train(members)}
    assert found[1] is None
    assert found[0] is not None
    assert not found[0].users
    assert "status 1: ZeroDivisionError: oh no; its output is in" in found[0].sentence
    assert not members[0].finished


def test_a_users_mistake_is_quoted_and_starts_no_other(tmp_path: Path) -> None:
    ending = "print('error: There is no such file.', file=sys.stderr); sys.exit(2)"
    members = scripts(tmp_path, ending, "")
    found = {member.number: failure for member, failure in Launcher(1).train(members)}
    assert found[0] is not None
    assert (found[0].users, found[0].sentence) == (True, "There is no such file.")
    assert found[1] is not None
    assert not members[1].folder.exists()


def test_leaving_early_ends_the_processes(tmp_path: Path) -> None:
    members = scripts(tmp_path, "", "time.sleep(60)")
    running = Launcher(2).train(members)
    first, _ = next(running)
    assert first.number == 0
    running.close()  # would wait a minute otherwise
    assert not members[1].finished


def test_a_checkpoint_that_is_gone_is_named(tmp_path: Path) -> None:
    (member,) = scripts(tmp_path, "")
    list(Launcher(1).train([member]))
    with pytest.raises(InputError, match=r"Member 0 \(seed 10\) has no checkpoint"):
        _ = member.checkpoint
