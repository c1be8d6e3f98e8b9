"""Configured classes as a person writes them: ``RandomPretraining(epochs=3)``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

#: Arguments that a checkpoint fills in, of many lines: not what somebody chose.
_FILLED_IN = ("config",)


def described(spec: Any) -> str:
    """A configured class with the arguments that are not its defaults, such as ``Compose(A(epochs=3), B)``.

    Args:
        spec: ``{"class_path": ..., "init_args": ...}``, a list of them, or a plain value; None gives an empty string.
    """
    if isinstance(spec, list):
        return ", ".join(described(item) for item in spec)
    if not isinstance(spec, dict) or "class_path" not in spec:
        return "" if spec is None else str(spec)
    defaults = _defaults(spec["class_path"])
    shown = [
        described(value) if isinstance(value, list) else f"{name}={described(value)}"
        for name, value in (spec.get("init_args") or {}).items()
        if name not in _FILLED_IN and value != defaults.get(name, inspect.Parameter.empty)
    ]
    short = spec["class_path"].rsplit(".", 1)[-1]
    return f"{short}({', '.join(shown)})" if shown else short


def differing(asked: dict[str, Any], used: dict[str, Any]) -> str:
    """The arguments that differ, as ``NAME is USED, not ASKED``; an empty string if none does."""
    return "; ".join(
        f"{name} is {described(value) or 'none'}, not {described(asked.get(name)) or 'none'}"
        for name, value in used.items()
        if dict(_leaves(value)) != dict(_leaves(asked.get(name)))
    )


def _defaults(class_path: str) -> dict[str, Any]:
    module, _, name = class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return {parameter.name: parameter.default for parameter in inspect.signature(kind).parameters.values()}


def _leaves(spec: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(spec, dict):
        for name, value in spec.items():
            if name not in _FILLED_IN:
                yield from _leaves(value, f"{place}.{name}")
    elif isinstance(spec, list):
        for number, value in enumerate(spec):
            yield from _leaves(value, f"{place}[{number}]")
    else:
        yield place, spec.rsplit(".", 1)[-1] if place.endswith("class_path") else spec
