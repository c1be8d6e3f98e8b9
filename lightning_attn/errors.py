"""A user's mistake, and how messages show what the user gave."""

from __future__ import annotations

import warnings

_MOST = 60  # characters


class InputError(ValueError):
    """A mistake in what the user gave: a file, a column, a configuration key, a checkpoint.

    Its message is one sentence that says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with status 2; every other exception is a bug of ours and keeps its traceback.
    """


class DivergedError(RuntimeError):
    """The weights of a network, or its loss, are not finite any more: nothing that it says means anything.

    The command line prints the message without a traceback and exits with status 1.
    """


def shown(text: str) -> str:
    """The text in quotes, its end left out where it is long."""
    return repr(text if len(text) <= _MOST else text[: _MOST - 3] + "...")


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
