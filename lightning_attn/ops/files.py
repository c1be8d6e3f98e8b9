"""Files that a person opens are replaced in one move: whatever goes wrong, the older one stays whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # drawing is the only part that needs matplotlib, and it takes a second to import
    from matplotlib.figure import Figure


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Where to write what is to become ``path``; it does when the block ends, and not if anything fails in it.

    Args:
        path: A file, there or not, in a folder that is there.

    Raises:
        OSError: Writing failed, the disk is full, say; it names ``path``.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException as error:
        if unfinished.exists():
            unfinished.unlink()
        if isinstance(error, OSError):
            raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8; see :func:`replacing`."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write a figure in the format that the ending of ``path`` says; see :func:`replacing`."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=Path(path).suffix[1:] or None, **options)
