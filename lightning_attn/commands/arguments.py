"""Options of the commands that need no Trainer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from lightning_attn.types import InputError


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
