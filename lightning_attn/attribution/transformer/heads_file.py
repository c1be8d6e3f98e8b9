"""Files that say which attention heads of a model are important: `read_heads`, `write_heads`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lightning_attn.types import InputError


def read_heads(path: str | Path) -> list[list[int]]:
    """Important attention heads of each layer, the lowest first, numbered from 0.

    Args:
        path: A JSON file whose ``layers`` is a list with one list of numbers a layer, as :func:`write_heads` makes it.

    Raises:
        InputError: The file is no such file.
    """
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no JSON file ({error}).") from error
    layers = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(layers, list) or not layers:
        raise InputError(f'{path} has no "layers": one list of attention heads a layer is expected there.')
    for number, layer in enumerate(layers):
        if not isinstance(layer, list) or not all(type(head) is int and head >= 0 for head in layer):
            raise InputError(
                f"Layer {number} of {path} is {json.dumps(layer)}: a list of attention heads, numbered from 0, is "
                "expected there."
            )
    return layers


def write_heads(path: str | Path, heads: Sequence[Sequence[int]]) -> None:
    """Write what :func:`read_heads` reads; parameters as it returns them."""
    Path(path).write_text(json.dumps({"layers": [list(layer) for layer in heads]}) + "\n", encoding="utf-8")
