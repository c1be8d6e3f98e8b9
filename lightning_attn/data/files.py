"""Reading text files line by line, compressed or not, with errors that name the file and the line."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from lightning_attn.errors import InputError

COMPRESSED = (".gz", ".xz")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz or .xz."""
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix.lower() == ".xz":
        return lzma.open(path, "rb")
    return path.open("rb")


def read_byte_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Numbered lines of a file, from 1, with the line break; lines break at ``\n`` only.

    Raises:
        InputError: The file is missing, damaged, or may not be read.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    number = 0
    try:
        with open_binary(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path} is damaged: it cannot be unpacked after line {number}.") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Numbered lines of a UTF-8 file, from 1, without the line break; lines break at ``\n`` or ``\r\n`` only.

    Raises:
        InputError: The file is missing, empty, damaged or not UTF-8, or may not be read.
    """
    number = 0
    for number, line in read_byte_lines(path):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number}, is not UTF-8 (byte {error.object[error.start]:#04x} at position "
                f"{error.start + 1} of the line): save the file as UTF-8."
            ) from None
        yield number, text.removesuffix("\n").removesuffix("\r")
    if number == 0:
        raise InputError(f"{path} is empty: it should hold one example per line.")


def parse_json(text: str | bytes, path: Path, line: int = 1) -> Any:
    """The value of a JSON text.

    Args:
        text: The text; bytes are UTF-8.
        path: Its file, for messages.
        line: The line of the file that it begins in.

    Raises:
        InputError: It is no JSON, is nested too deeply, or holds half a character.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        content = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start} cannot be read.") from None
    except UnicodeEncodeError:
        raise InputError(f"{path}, line {line}, has half of a surrogate pair, which is no character.") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {line + error.lineno - 1}, is not JSON ({error.msg} at column {error.colno})."
        ) from None
    except (RecursionError, ValueError):  # the latter for whole numbers of thousands of digits
        raise InputError(f"{path}, line {line}, is JSON nested too deeply, or with too long a number.") from None
    return content


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
    except (PermissionError, IsADirectoryError) as error:
        raise _unreadable(path, error) from None
    return state.hexdigest()


def digest_once(path: Path) -> str:
    """:func:`digest`, computed once per process as long as the file is not written to: some hold gigabytes."""
    status = path.stat()
    return _digest(path, status.st_mtime_ns, status.st_size)


@functools.cache
def _digest(path: Path, modified: int, size: int) -> str:
    return digest(path)


def existing(path: str | Path, what: str) -> Path:
    """The path, its ``~`` expanded.

    Raises:
        InputError: Nothing is there.
    """
    expanded = Path(path).expanduser()
    if not expanded.exists():
        raise InputError(f"There is no {what} at {expanded}.")
    return expanded


def _unreadable(path: Path, error: OSError) -> InputError:
    if isinstance(error, PermissionError):
        return InputError(f"{path} may not be read: give yourself the permission to read it.")
    return InputError(f"{path} cannot be read ({error.strerror or error}).")
