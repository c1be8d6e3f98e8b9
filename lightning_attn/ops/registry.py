"""Things by the name that users type: `Registry`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

from lightning_attn.errors import InputError

Value = TypeVar("Value")


class Registry(dict[str, Value]):
    """A dictionary by name that answers an unknown name with all that there are.

    Example:
        >>> Registry("kernel", "kernels", {"rbf": 1, "cosine": 2})["rbf"]
        1

    Args:
        kind: What one of its values is called in that answer.
        kinds: What several are called.
        values: By name; more come by :meth:`register`.
    """

    def __init__(self, kind: str, kinds: str, values: Mapping[str, Value] | None = None) -> None:
        super().__init__(values or {})
        self.kind = kind
        self.kinds = kinds

    def __missing__(self, name: str) -> NoReturn:
        raise InputError(f"There is no {self.kind} {name!r}; the {self.kinds} are {', '.join(sorted(self))}.")

    def register(self, name: str) -> Callable[[Value], Value]:
        """Decorator that makes a class or function known under ``name``."""

        def add(value: Value) -> Value:
            self[name] = value
            return value

        return add
