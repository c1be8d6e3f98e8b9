"""Prepared data on disk: written once, whole or not at all, and opened memory-mapped by every process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError

VERSION = 2  # raise it when the same data and settings come to give other arrays or notes


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
    """Write to a folder beside ``folder`` and rename it, so that a killed or a second process does no harm.

    Raises:
        InputError: The cache cannot be written.
    """
    building = _new_folder(folder.parent, f".{folder.name}-")
    try:
        for name, array in prepared.arrays.items():
            np.save(building / f"{name}.npy", array)
        (building / "state.json").write_text(json.dumps({"state": prepared.state, "notes": prepared.notes}))
        building.chmod(0o755)  # mkdtemp keeps others out, but a cache may be shared
        os.rename(building, folder)  # noqa: PTH104, Path.rename is the same call
    except OSError as error:
        if not folder.is_dir():  # a full disk, say; otherwise another process was first, with the same content
            raise _unwritable(folder.parent, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A folder in the cache ``root`` that is gone when the block is left.

    Raises:
        InputError: The cache cannot be written.
    """
    folder = _new_folder(root, ".reading-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load(folder: Path) -> Prepared | None:
    """What :func:`save` wrote, its arrays memory-mapped; None if there is nothing."""
    if not folder.is_dir():
        return None
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    content = json.loads((folder / "state.json").read_text())
    return Prepared(arrays, content["state"], content["notes"])


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
    found = load(folder)
    if restored is not None and (found is None or found.state != restored):
        # not what these settings would build, but what the checkpoint was built with
        folder = root / fingerprint({**facts, "restored": restored})
        found = load(folder)
    if found is None:
        save(build(), folder)
        found = load(folder)
    if found is None:
        raise InputError(f"The cache folder {folder} vanished while it was being written.")
    return found


def _new_folder(root: Path, prefix: str) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    except OSError as error:
        raise _unwritable(root, error) from None


def _unwritable(root: Path, error: OSError) -> InputError:
    return InputError(
        f"The cache folder {root} cannot be written ({error.strerror or error}); set cache_dir or the environment "
        "variable LIGHTNING_ATTN_CACHE to one that can."
    )
