import errno
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_attn.data import cache
from lightning_attn.errors import InputError


def prepared() -> cache.Prepared:
    return cache.Prepared({"train.ids": np.arange(5), "train.none": np.zeros(0)}, {"names": ["\u00e9"]}, ["A note."])


def test_what_is_saved_is_loaded_memory_mapped(tmp_path: Path) -> None:
    cache.save(prepared(), tmp_path / "a" / "b")
    found = cache.load(tmp_path / "a" / "b")
    assert found is not None
    assert isinstance(found.arrays["train.ids"], np.memmap)
    assert found.arrays["train.ids"].tolist() == [0, 1, 2, 3, 4]
    assert found.arrays["train.none"].shape == (0,)
    assert (found.state, found.notes) == ({"names": ["\u00e9"]}, ["A note."])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_nothing_is_loaded_where_nothing_is(tmp_path: Path) -> None:
    assert cache.load(tmp_path / "a") is None


def test_a_process_that_comes_second_does_no_harm(tmp_path: Path) -> None:
    cache.save(prepared(), tmp_path / "a")
    cache.save(prepared(), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_processes_that_race_leave_one_whole_entry(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(cache.save, [(prepared(), tmp_path / "a")] * 12)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert cache.load(tmp_path / "a") is not None


def test_a_killed_writer_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.save(prepared(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train.ids.npy", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "other bytes"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    def entry() -> cache.Prepared:
        return cache.opened(tmp_path, {"a": 1}, prepared)

    entry()
    [folder] = tmp_path.iterdir()
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "removed":
        (folder / name).write_bytes({"emptied": b"", "cut": content[:-1], "other bytes": content[::-1]}[damage])
    assert entry().arrays["train.ids"].tolist() == [0, 1, 2, 3, 4]
    assert (folder / name).read_bytes() == content
    assert [*tmp_path.iterdir()] == [folder]


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from lightning_attn.data import cache\n"
        "scratch = cache.scratch(pathlib.Path(sys.argv[1])); scratch.__enter__(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert len([*tmp_path.iterdir()]) == 1
    with cache.scratch(tmp_path) as first, cache.scratch(tmp_path) as second:
        assert {*tmp_path.iterdir()} == {first, second}


def test_a_process_that_was_killed_before_it_locked_its_folder_leaves_nothing_for_good(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from lightning_attn.data import cache\n"
        "lock, root = cache.fcntl.flock, pathlib.Path(sys.argv[1])\n"
        "cache.fcntl.flock = lambda *given: os.kill(os.getpid(), 9) if any(root.iterdir()) else lock(*given)\n"
        "cache.scratch(root).__enter__()"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert len([*tmp_path.iterdir()]) == 1
    cache.save(prepared(), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written.*LIGHTNING_ATTN_CACHE"):
        cache.save(prepared(), tmp_path / "file" / "a")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); set cache_dir"):
        cache.save(prepared(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_is_gone_when_it_is_left(tmp_path: Path) -> None:
    def fail_in_the_block() -> None:
        with cache.scratch(tmp_path / "new" / "root") as folder:
            (folder / "file").touch()
            raise OSError("of the block")

    with pytest.raises(OSError, match="of the block"):
        fail_in_the_block()
    assert list((tmp_path / "new" / "root").iterdir()) == []


def test_a_scratch_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(File exists\); set cache_dir"):
        cache.scratch(tmp_path / "file").__enter__()

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", read_only)
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\)"):
        cache.scratch(tmp_path).__enter__()


def test_fingerprint_depends_on_each_fact() -> None:
    first = cache.fingerprint({"a": 1, "b": [1, None]})
    assert first == cache.fingerprint({"b": [1, None], "a": 1})
    assert len({first, cache.fingerprint({"a": 2, "b": [1, None]}), cache.fingerprint({"a": 1, "b": [None, 1]})}) == 3


def test_root_is_the_argument_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", "/env")
    assert cache.cache_root("/given") == Path("/given")
    assert cache.cache_root(None) == Path("/env")
    monkeypatch.delenv("LIGHTNING_ATTN_CACHE")
    assert cache.cache_root(None) == Path.home() / ".cache/lightning_attn"
