"""A progress bar for long preparations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")
LONG = 10_000  # texts; fewer are done before a bar could be read


def track(items: Sequence[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """The items, with a bar on the terminal that goes when they are done; none where there are few.

    Args:
        items: What is worked through.
        description: Stands before the bar.
        total: How many texts the items stand for; None means one each.
    """
    return rich_track(
        items,
        description,
        console=Console(stderr=True),
        transient=True,
        disable=(len(items) if total is None else total) < LONG,
    )
