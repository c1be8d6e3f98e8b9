"""How messages show what a user gave: `shown`."""

from __future__ import annotations

_MOST = 60  # characters


def shown(text: str) -> str:
    """The text in quotes, its end left out where it is long."""
    return repr(text if len(text) <= _MOST else text[: _MOST - 3] + "...")
