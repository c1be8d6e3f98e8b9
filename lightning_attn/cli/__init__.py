"""The command line: ``lightning-attn``, also installed as ``lightning``, and ``python -m lightning_attn``."""

from lightning_attn.cli.commands import entry, main

__all__ = ["entry", "main"]
