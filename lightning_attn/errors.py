"""A user's mistake, and how messages show what the user gave."""

from __future__ import annotations

import re
import warnings

_MOST = 60  # characters
_LONGEST = 500  # characters of a sentence
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_PIECE = re.compile(r"\S{200,}")


class InputError(ValueError):
    """A mistake in what the user gave: a file, a column, a configuration key, a checkpoint.

    Its message is one sentence that says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with status 2; every other exception is a bug of ours and keeps its traceback. What
    stands in it may come from a damaged file, so control characters are written out, and what is far too long is cut.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_readable(message))


class DivergedError(RuntimeError):
    """The weights of a network, or its loss, are not finite any more: nothing that it says means anything.

    The command line prints the message without a traceback and exits with status 1.
    """


def shown(text: str) -> str:
    """The text in quotes, its end left out where it is long."""
    return repr(text if len(text) <= _MOST else text[: _MOST - 3] + "...")


def _readable(message: str) -> str:
    """The message in one line of at most 500 characters."""
    message = message.replace("\n", " ")
    message = _CONTROL.sub(lambda control: control[0].encode("unicode_escape").decode(), message)
    if len(message) > _LONGEST:
        message = _PIECE.sub(lambda piece: piece[0][:_MOST] + "...", message)
    if len(message) > _LONGEST:
        message = f"{message[:330]} ... {message[-150:]}"
    return message


def adopt_renamed(cls: type, **names: str) -> None:
    """For ``__init_subclass__``: what a subclass calls by the name of 0.1.0 overrides the method of today, and warns.

    Args:
        cls: The subclass.
        **names: From the old name of a method to the one it has.
    """
    for old, new in names.items():
        if old in vars(cls) and new not in vars(cls):
            warnings.warn(f"{cls.__name__}.{old} is called {new} now: rename it.", DeprecationWarning, stacklevel=3)
            setattr(cls, new, vars(cls)[old])
