"""Prepared data on disk: written once, whole or not at all, and opened memory-mapped by every process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data.encoded import Array
from lightning_attn.data.files import digest, digest_once
from lightning_attn.errors import InputError

VERSION = 4  # raise it when the same data and settings come to give other arrays or notes
MANIFEST = "manifest.json"  # size and SHA-256 of each other file of an entry
SCRATCH = ".reading-"
LOCK = "lock"


@dataclass
class Prepared:
    """Tokenised data, ready for use.

    Attributes:
        arrays: Flat arrays by name, such as ``train.ids``.
        state: What :meth:`AttentionDataModule.export` gives.
        notes: Sentences for the user on how the data were read.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def cache_root(folder: str | Path | None) -> Path:
    """The folder given; or that of LIGHTNING_ATTN_CACHE; or ``~/.cache/lightning_attn``."""
    return Path(folder or os.environ.get("LIGHTNING_ATTN_CACHE") or "~/.cache/lightning_attn").expanduser()


def fingerprint(facts: dict[str, Any]) -> str:
    """A name for everything that decides what the prepared data look like; the facts are plain values."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def save(prepared: Prepared, folder: Path) -> None:
    """Make prepared data an entry of the cache; a killed or a second process does no harm.

    Raises:
        InputError: The cache cannot be written.
    """
    with scratch(folder.parent) as building:
        publish(building, prepared, folder)


def publish(building: Path, prepared: Prepared, folder: Path) -> None:
    """Turn a :func:`scratch` folder into an entry of the cache.

    Args:
        building: The folder; what stands in ``building / "entry"`` already becomes part of the entry.
        prepared: What else belongs to it.
        folder: The entry's place in the cache.

    Raises:
        InputError: The cache cannot be written.
    """
    entry = building / "entry"
    try:
        entry.mkdir(exist_ok=True)
        for name, array in prepared.arrays.items():
            np.save(entry / f"{name}.npy", array)
        (entry / "state.json").write_text(json.dumps({"state": prepared.state, "notes": prepared.notes}))
        files = {path.name: [path.stat().st_size, digest(path)] for path in sorted(entry.iterdir())}
        (entry / MANIFEST).write_text(json.dumps(files))
        os.rename(entry, folder)  # noqa: PTH104, Path.rename is the same call
    except OSError as error:
        if not folder.is_dir():  # a full disk, say; otherwise another process was first, with the same content
            raise _unwritable(folder.parent, error) from error


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A folder in the cache ``root`` that is gone when the block is left; those of killed processes go first.

    Raises:
        InputError: The cache cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):  # nobody may take a folder that has no lock yet for one whose process is gone
            _remove_leftovers(root)
            folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=root))
            lock = (folder / LOCK).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it when this process ends, however it ends
    except OSError as error:
        raise _unwritable(root, error) from None
    try:
        yield folder
    finally:
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)


def load(folder: Path) -> Prepared | None:
    """What :func:`save` wrote, its arrays memory-mapped; None if there is nothing.

    An entry whose files are not those of its manifest is removed, so that it is made again.
    """
    if not folder.is_dir():
        return None
    if not _is_whole(folder):
        broken = folder.with_name(f"{SCRATCH}{folder.name}-{os.getpid()}")
        with suppress(OSError):  # another process may have moved it away first
            folder.rename(broken)
        shutil.rmtree(broken, ignore_errors=True)
        return None
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    content = json.loads((folder / "state.json").read_text())
    return Prepared(arrays, content["state"], content["notes"])


def _is_whole(folder: Path) -> bool:
    """Whether the files of an entry have the sizes and digests of its manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        stats = {name: (folder / name).stat() for name in manifest}
        return all(
            stats[name].st_size == size and digest_once(folder / name) == sha for name, (size, sha) in manifest.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):  # files are missing, or the manifest is damaged itself
        return False


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time be in the block."""
    held = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _remove_leftovers(root: Path) -> None:
    """Remove the scratch folders of processes that are gone: nobody holds their locks."""
    for folder in root.glob(f"{SCRATCH}*"):
        try:
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except FileNotFoundError:  # of a version without locks, or half removed
            pass
        shutil.rmtree(folder, ignore_errors=True)


def opened(
    root: Path, facts: dict[str, Any], build: Callable[[], Prepared], restored: dict[str, Any] | None = None
) -> Prepared:
    """Prepared data out of the cache, which are made first if they are not there.

    Args:
        root: The cache.
        facts: See :func:`fingerprint`.
        build: Makes them.
        restored: State of a checkpoint that the data must have, whatever the facts would give; None for no such state.

    Raises:
        InputError: The cache cannot be written.
    """
    folder = root / fingerprint(facts)
    prepared = load(folder)
    if restored is not None and (prepared is None or prepared.state != restored):
        # not what these settings would build, but what the checkpoint was built with
        folder = root / fingerprint({**facts, "restored": restored})
        prepared = load(folder)
    if prepared is None:
        save(build(), folder)
        prepared = load(folder)
    if prepared is None:
        raise InputError(f"The cache folder {folder} vanished while it was being written.")
    return prepared


def _unwritable(root: Path, error: OSError) -> InputError:
    return InputError(
        f"The cache folder {root} cannot be written ({error.strerror or error}); set cache_dir or the environment "
        "variable LIGHTNING_ATTN_CACHE to one that can."
    )
