"""One sentence out of what the parser has to say about a wrong configuration."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pytorch_lightning import Trainer

from lightning_attn.errors import InputError, shown

#: The parser reports a tree of attempts. These are its steps down, and after `leaf`, what was wrong at the end.
_STEPS = re.compile(
    r"""Parser\ key\ "(?P<key>[^"]+)"
    |Problem\ with\ given\ class_path\ '(?P<owner>[^']+)'
    |Subtypes:\ \[(?P<types>.*)\]
    |Option\ '(?P<option>[^']+)'\ is\ not\ accepted
    |Expected\ a\ dot\ import\ path\ string:\ (?P<name>\S+)
    |(?P<absent>No\ module\ named\ .*|module\ '[^']+'\ has\ no\ attribute\ .*|.*\ is\ not\ a\ subclass\ of\ .*)
    |arguments\ are\ required:\ (?P<required>.*)
    |Expected\ a\ (?!path\ but)(?P<expected>.*?)(?:\.\ Got\ value:\ (?P<value>.*))?$""",
    re.VERBOSE | re.MULTILINE,
)
_TOP_KEYS = ["config", "seed_everything", "trainer", "model", "data", "ckpt_path", "wandb", "tensorboard", "trust"]
_MOST = 14  # names that a sentence can list


def sentence(message: str) -> str:
    """What is wrong, where, and what would be right.

    Args:
        message: From ``jsonargparse``, as it stands after ``error:``.
    """
    if found := re.search(r"does not accept option '([^']+)'|unrecognized arguments: (.+)", message):
        given = found[1] or found[2]
        key = given.lstrip("-").split("=")[0].split()[0]
        if not given.startswith("-") and key in _known_keys():
            return f"{given.split()[0]!r} is no option; did you mean --{given.split()[0]}?"
        return f"There is no option {key!r}{_instead(key, _known_keys())}"
    if found := re.search(r"File does not exist: '([^']+)'", message):
        return f"The configuration file {found[1]} does not exist."
    if found := re.match(r"the following arguments are required: (.+)", message):
        keys = " and ".join(key.split(".")[-1] for key in found[1].split(", "))
        start = "--config configs/quickstart.yaml in a clone of the project"
        return f"The configuration says nothing about {keys}; start from {start}."
    return _descend(message) or " ".join(message.split())


def make(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a class that is configured; what it refuses begins with its name.

    Raises:
        InputError: It refuses its arguments.
    """
    try:
        return kind(*args, **kwargs)
    except (ValueError, OSError) as error:
        text, name = " ".join(str(error).split()), getattr(kind, "__name__", "")
        if name in text:
            raise
        raise InputError(f"{name}: {text}") from error


def refusal(error: Exception) -> str:
    """What a constructor says of its arguments, where the parser tells all its attempts at them.

    Args:
        error: That came while classes were instantiated, see :func:`make`. Its first cause is the constructor's own.

    Returns:
        One line.
    """
    while not isinstance(error, InputError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(error).split())


def _descend(message: str) -> str | None:
    path: list[str] = []
    owner, types = "", ""
    for step in _STEPS.finditer(message):
        found = {name: value for name, value in step.groupdict().items() if value is not None}
        key = ".".join(path)
        if "key" in found:
            path.append(found["key"])
            types = ""
        elif "owner" in found:
            owner, types = found["owner"], ""
            path.append("init_args")
        elif "types" in found:
            types = found["types"]
        elif "option" in found:
            name, place = found["option"], key.removesuffix(".init_args")
            return f"In {place}, {_short(owner)} has no argument {name!r}{_instead(name, _parameters(owner))}"
        elif "name" in found:
            name = found["name"]
            return f"There is no class {name!r} for {key}{_instead(name, _candidates(owner, path[-1], types))}"
        elif "absent" in found:
            reason = found["absent"].strip()
            return f"The class {owner!r} for {key.removesuffix('.init_args')} cannot be found: {reason}."
        elif "required" in found:
            return (
                f"{_short(owner)} needs {found['required'].replace(', ', ' and ')}: set "
                f"{' and '.join(f'--{key}.{name}' for name in found['required'].split(', '))}."
            )
        elif path:
            given = re.search(r"Given value: (.*)", message[step.end() :])
            value = (found.get("value") or (given[1] if given else "that value")).split(". Got value:")[0]
            return f"{key} cannot be {shown(value)}: it must be {_readable(types or found['expected'])}."
    return None


def _instead(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, and all of them if they are few."""
    names = sorted(set(known))
    lowered = {candidate.lower(): candidate for candidate in names}
    begun = [candidate for match, candidate in lowered.items() if name and match.startswith(name.lower())][:3]
    near = begun or [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]
    listed = ", ".join(names) if len(names) <= _MOST else ""
    if near:
        return f"; did you mean {' or '.join(near)}{f' (known: {listed})' if listed and len(names) > 1 else ''}?"
    return f"; known: {listed}." if listed else "."


def _known_keys() -> list[str]:
    return [*_TOP_KEYS, *(f"trainer.{name}" for name in inspect.signature(Trainer).parameters)]


def _short(class_path: str) -> str:
    return class_path.rsplit(".", 1)[-1] or "The configuration"


def _parameters(class_path: str) -> Iterable[str]:
    kind = _import(class_path)
    return [] if kind is None else inspect.signature(kind).parameters


def _candidates(owner: str, parameter: str, types: str) -> Iterator[str]:
    """Names of the classes that a parameter may take, those that nobody can instantiate left out."""
    bases = [_import(path) for path in re.findall(r"[\w.]+\.\w+", types)]
    if not bases and (kind := _import(owner)) is not None:
        bases = list(_classes(typing.get_type_hints(kind.__init__).get(parameter)))
    for base in bases:
        if isinstance(base, type):
            yield from (kind.__name__ for kind in _subclasses(base) if not inspect.isabstract(kind))


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _classes(argument)


def _subclasses(kind: type) -> Iterator[type]:
    if not kind.__name__.startswith("_"):
        yield kind
    direct: list[type] = kind.__subclasses__()
    for below in direct:
        yield from _subclasses(below)


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name, None) if module else None


def _readable(expected: str) -> str:
    """Types as a person writes them."""
    text = re.sub(r"<class '([^']+)'>", r"\1", expected).replace("typing.", "").replace("collections.abc.", "")
    text = re.sub(r"Literal\[([^]]*)\]", r"\1", text)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text).replace("NoneType", "null").replace(", ", " or ")
