"""``python -m lightning_attn``."""

from lightning_attn.cli import entry

if __name__ == "__main__":
    entry()
