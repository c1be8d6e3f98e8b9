"""Options of the commands that need no Trainer."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from lightning_attn.errors import InputError


class Arguments(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the options, where argparse would print its usage and exit.

    Args:
        command: Name of the command.
        description: What it does.
        example: A command line that works.
    """

    def __init__(self, command: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"lightning-attn {command}", description=description, epilog=f"Example: {example}", allow_abbrev=False
        )
        self.command = command

    def add_trust(self) -> None:
        """Add ``--trust``, which a command takes that makes the network of a checkpoint."""
        self.add_argument(
            "--trust",
            nargs="+",
            action="extend",
            default=[],
            metavar="PACKAGE",
            help="packages of your own that classes of the checkpoint may come from; their code is run",
        )

    def parse(self, options: Sequence[str]) -> argparse.Namespace | None:
        """The options; None after ``--help``, which has been printed then.

        Raises:
            InputError: An option is wrong or missing.
        """
        try:
            return self.parse_args(options)
        except SystemExit:
            return None

    def error(self, message: str) -> NoReturn:
        """Raise an `InputError`."""
        raise InputError(f"{self.command}: {message}; see {self.prog} --help.")


def output_path(option: str, value: str, others: Iterable[tuple[str, str]] = ()) -> Path:
    """Where a command will write, checked before it starts to work.

    Args:
        option: What the user wrote it behind.
        value: What the user wrote.
        others: Options and values of files that it must not be, because it would replace them.

    Raises:
        InputError: Nothing can be written there, or it is one of the other files.
    """
    path = Path(value).expanduser()
    if path.is_dir():
        raise InputError(f"{option} {value} is a folder; give the name of a file in it.")
    if not path.parent.is_dir():
        raise InputError(f"{option} {value} cannot be written: there is no folder {path.parent}.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{option} {value} cannot be written: permission denied.")
    for name, other in others:
        if path.resolve() == Path(other).expanduser().resolve():
            raise InputError(f"{option} and {name} are the same file, {value}, which would be replaced.")
    return path
