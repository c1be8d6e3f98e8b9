"""Which files hold which bags: `find_bag_files`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_attn.data.files import COMPRESSED
from lightning_attn.data.tables import SPLIT_NAMES, split_of
from lightning_attn.errors import InputError


def ending(path: Path) -> str:
    """The ending that says how a file is to be read, without that of its compression."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def find_bag_files(path: str | Path, endings: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each split in a folder; a file alone, or the only one of a folder, is of "": no split is known.

    Args:
        path: A file or a folder.
        endings: The endings that are read.

    Raises:
        InputError: There are none, or it is not clear which to take.
    """
    found = Path(path).expanduser()
    known = ", ".join(endings)
    if not found.exists():
        raise InputError(f"There is no file or folder of bags at {found}.")
    if found.is_file():
        if ending(found) not in endings:
            raise InputError(f"{found} is none of {known}.")
        return {"": [found]}
    candidates = [child for child in sorted(found.iterdir()) if child.is_file() and ending(child) in endings]
    if not candidates:
        raise InputError(f"{found} holds no {known} file.")
    if len(candidates) == 1 and split_of(candidates[0].stem) is None:
        return {"": candidates}
    files: dict[str, list[Path]] = {}
    for candidate in candidates:
        split = split_of(candidate.name.split(".")[0])
        if split is None:
            raise InputError(
                f"{candidate} is named after none of {', '.join(SPLIT_NAMES)}, as each of several must be; rename it, "
                "or give a single file."
            )
        files.setdefault(split, []).append(candidate)
    return {split: files[split] for split in SPLIT_NAMES if split in files}
