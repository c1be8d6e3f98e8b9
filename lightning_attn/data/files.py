"""Reading text files line by line, compressed or not, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from lightning_attn.errors import InputError

COMPRESSED = (".gz", ".xz")


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz or .xz."""
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    return path.open("rb")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Numbered lines of a UTF-8 file, from 1, without the line break; lines break at ``\n`` or ``\r\n`` only.

    Raises:
        InputError: The file is missing, empty, damaged or not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    number = 0
    try:
        with open_binary(path) as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}, is not UTF-8 (byte {error.object[error.start]:#04x} at position "
            f"{error.start + 1} of the line): save the file as UTF-8."
        ) from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path} is damaged: it cannot be unpacked after line {number}.") from None
    if number == 0:
        raise InputError(f"{path} is empty: it should hold one example a line.")


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as it is on disk.

    Raises:
        InputError: The file may not be read.
    """
    state = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
    except PermissionError:
        raise InputError(f"{path} may not be read: give yourself the permission to read it.") from None
    return state.hexdigest()


def existing(path: str | Path, what: str) -> Path:
    """The path, its ``~`` expanded.

    Raises:
        InputError: Nothing is there.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise InputError(f"There is no {what} at {found}.")
    return found
