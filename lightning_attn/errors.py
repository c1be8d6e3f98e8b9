"""A user's mistake, and how messages show what the user gave."""

from __future__ import annotations

_MOST = 60  # characters


class InputError(ValueError):
    """A mistake in what the user gave: a file, a column, a configuration key, a checkpoint.

    Its message is one sentence that says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with status 2; every other exception is a bug of ours and keeps its traceback.
    """


def shown(text: str) -> str:
    """The text in quotes, its end left out where it is long."""
    return repr(text if len(text) <= _MOST else text[: _MOST - 3] + "...")
