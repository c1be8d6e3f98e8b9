import gzip
import hashlib
import lzma
from pathlib import Path

import pytest

from lightning_attn.data.files import digest, read_lines
from lightning_attn.errors import InputError


@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_lines_break_at_line_feeds_only(tmp_path: Path, ending: str, pack) -> None:
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(pack("\ufeffone\r\ntwo\u2028\u00a0\x0b2\n\nlast".encode()))
    assert list(read_lines(path)) == [(1, "one"), (2, "two\u2028\u00a0\x0b2"), (3, ""), (4, "last")]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*a\.txt"):
        list(read_lines(tmp_path / "a.txt"))


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"a\.txt is empty"):
        list(read_lines(tmp_path / "a.txt"))


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("fine\nna\u00efve\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.txt, line 2, is not UTF-8 \(byte 0xef at position 3"):
        list(read_lines(path))


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_a_truncated_archive_is_called_damaged(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.txt{ending}"
    packed = (gzip.compress if ending == ".gz" else lzma.compress)(b"word\n" * 50000)
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="is damaged"):
        list(read_lines(path))


def test_a_wrong_ending_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_text("plain")
    with pytest.raises(InputError, match="is damaged"):
        list(read_lines(path))


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
