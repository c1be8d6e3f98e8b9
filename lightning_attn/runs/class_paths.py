"""What a file may have imported and called: `check_checkpoint`, `check_configuration`, `trusting`."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import os
import sys
import types
import typing
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from typing_extensions import TypeAliasType

from lightning_attn.errors import InputError, shown

#: Packages whose classes a checkpoint may name without being asked for.
_OWN = ("lightning_attn", "torch", "transformers", "pytorch_lightning")
#: What may be made where an argument's annotation does not say what belongs there, by name: explain needs no Lightning.
_KINDS = {
    "torch.nn.modules.module.Module",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "pytorch_lightning.callbacks.callback.Callback",
    "pytorch_lightning.loggers.logger.Logger",
    "pytorch_lightning.core.datamodule.LightningDataModule",
}
_PLAIN = (bool, int, float, complex, str, bytes, Path, type(None))
_UNKNOWN = object()  # an annotation that cannot be resolved
_DEEPEST = 64  # levels of a specification; ours have about ten
#: Packages with all that is in them, and single modules, that the user named.
_TRUSTED: ContextVar[tuple[frozenset[str], frozenset[str]]] = ContextVar("trusted", default=(frozenset(), frozenset()))


@contextmanager
def trusting(packages: str | Iterable[str] | None = None, configuration: Any = None) -> Iterator[None]:
    """Let checkpoints name classes of more packages while the block runs.

    Args:
        packages: Names of packages or modules that the user trusts, with everything in them.
        configuration: What the user's own configuration says, plain values: the modules of the classes that it names
            may be imported, and no others of the same package.

    Raises:
        InputError: A package has no valid name.
    """
    names = [packages] if isinstance(packages, str) else list(packages or ())
    for name in names:
        if not isinstance(name, str) or not _is_dotted(name):
            raise InputError(f"--trust takes the name of a package, such as my_package, not {name!r}.")
    before = _TRUSTED.get()
    token = _TRUSTED.set((before[0] | set(names), before[1] | set(_modules(configuration))))
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def check_checkpoint(specification: Any, expected: type, place: str) -> None:
    """See that a specification out of a checkpoint makes nothing but what belongs where it stands.

    A class may come from this package, PyTorch, transformers or Lightning, from a package that :func:`trusting` names,
    or from a module that this process has imported already; no other module is imported to find out. Every class must
    be a subclass of what the annotation of its argument says, and every argument must be one of its class. Nothing is
    made here, and no file that the specification names is looked into.

    Args:
        specification: ``{"class_path": ..., "init_args": ...}``.
        expected: What it must be a subclass of.
        place: What to call it in messages.

    Raises:
        InputError: It names something else.
    """
    _Walk(_importable, "checkpoint").specification(specification, _Slot((expected,)), place)


def check_configuration(specification: Any, expected: type, place: str) -> None:
    """See that a configuration makes nothing but what belongs where it stands; it may name any module.

    Args:
        specification: ``{"class_path": ..., "init_args": ...}``, as the parser gives it: class paths in full.
        expected: What it must be a subclass of.
        place: What to call it in messages.

    Raises:
        InputError: It names something else.
    """
    _Walk(_imported, "configuration").specification(specification, _Slot((expected,)), place)


@dataclass(frozen=True)
class _Slot:
    """What an argument may be, out of its annotation."""

    kinds: tuple[type, ...] = ()  # classes that may be made for it
    callables: bool = False  # whether it takes a function of any kind
    text: bool = False
    anything: bool = False  # whether nobody knows

    @classmethod
    def from_hint(cls, hint: Any) -> _Slot:
        leaves = dict.fromkeys(_leaves(hint))
        if _UNKNOWN in leaves:
            return cls(callables=True, text=True, anything=True)
        kinds = [leaf for leaf in leaves if leaf not in (Any, collections.abc.Callable)]
        return cls(
            kinds=tuple(kind for kind in kinds if not issubclass(kind, (*_PLAIN, Enum))),
            callables=collections.abc.Callable in leaves,
            text=any(issubclass(kind, (str, Path, Enum)) for kind in kinds),
            anything=Any in leaves,
        )

    def takes(self, kind: type) -> bool:
        try:
            if issubclass(kind, self.kinds):
                return True
        except TypeError:  # a Protocol that cannot be asked
            return _is_known(kind)
        if self.callables and "__call__" in dir(kind) and not _is_standard(kind):
            return True
        return self.anything and _is_known(kind)

    def __str__(self) -> str:
        return " or ".join(dict.fromkeys(kind.__name__ for kind in self.kinds)) or "class"


@dataclass
class _Walk:
    """One way through a specification, whoever wrote it."""

    resolve: Callable[[str], Any]
    source: str

    def specification(self, value: Any, slot: _Slot, place: str, depth: int = 0) -> None:
        """A value in its slot, and everything inside it."""
        if depth > _DEEPEST:
            raise InputError(f"The {self.source} is nested more than {_DEEPEST} levels deep at {place}.")
        if isinstance(value, Namespace):
            value = vars(value)
        if isinstance(value, Mapping):
            if "class_path" in value:
                self._class(value, slot, place, depth)
                return
            # The fields of a dataclass, which the parser makes of a plain mapping, have slots of their own.
            fields = {name: one for kind in slot.kinds if is_dataclass(kind) for name, one in _arguments(kind).items()}
            for name, part in value.items():
                self.specification(part, fields.get(name, slot), f"{place}.{name}", depth + 1)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for number, part in enumerate(value):
                self.specification(part, slot, f"{place}[{number}]", depth + 1)
        elif isinstance(value, str) and self.source == "checkpoint":
            self._text(value, slot, place)

    def _class(self, value: Mapping[str, Any], slot: _Slot, place: str, depth: int) -> None:
        path = value["class_path"]
        kind = self._named(path, slot, place)
        for section in ("init_args", "dict_kwargs"):
            arguments = value.get(section)
            if arguments is None:
                continue
            if isinstance(arguments, Namespace):
                arguments = vars(arguments)
            if not isinstance(arguments, Mapping):
                raise InputError(f"The {self.source} has {shown(str(arguments))} for {place}.{section}, no arguments.")
            slots = _arguments(kind)
            for name, part in arguments.items():
                if name not in slots and None not in slots and self.source == "checkpoint":
                    raise InputError(f"Its classes take other arguments by now: {path} has no argument {name!r:.60}.")
                known = slots.get(name) or slots.get(None) or _Slot(anything=True)
                self.specification(part, known, f"{place}.{name}", depth + 1)
            fetches = {"name_or_path", "config"} <= slots.keys() and not arguments.get("config")
            if self.source == "checkpoint" and fetches:
                raise InputError(
                    f"The checkpoint names the pretrained model {arguments.get('name_or_path')!r:.60} for {place} "
                    "and lacks its configuration, which would have to be fetched: no file decides what is fetched."
                )

    def _named(self, path: Any, slot: _Slot, place: str) -> Any:
        """The class that is named; whether it belongs there is known before it is called."""
        if not isinstance(path, str):
            raise InputError(f"The {self.source} names no class for {place}: class_path is {shown(str(path))}.")
        kind = self.resolve(path) if "." in path else _by_name(path, slot)
        if not isinstance(kind, type):
            if callable(kind) and _gives(kind, slot) and (self.source == "configuration" or _is_named(path)):
                return kind  # a function of the user's that says what it returns
            raise InputError(f"The {self.source} names {path} for {place}, which is no {slot}; it was not called.")
        if not slot.takes(kind):
            raise InputError(f"The {self.source} names {path} for {place}, which is no {slot}; it was not made.")
        return kind

    def _text(self, value: str, slot: _Slot, place: str) -> None:
        """A string of a checkpoint: the parser might take it for a class, a function, a file or YAML."""
        if not (slot.kinds or slot.callables):
            return
        exists = os.path.exists(value)  # noqa: PTH110 - Path.exists raises where no file can have the name
        if exists or "class_path" in value or not (slot.text or _is_dotted(value)):
            raise InputError(f"The checkpoint has {shown(value)} for {place}, which is no {slot}.")
        if "." not in value or not _is_dotted(value):
            return
        if slot.kinds:
            self._named(value, slot, place)
        elif not _is_named(value) or not callable(self.resolve(value)):
            raise InputError(f"The checkpoint has {shown(value)} for {place}, which is no function of the user's.")


def _importable(path: str) -> Any:
    """What a checkpoint names; a module that nobody chose is not imported."""
    module, _, name = path.rpartition(".")
    if not _is_dotted(path):
        raise InputError(f"The checkpoint names the class {shown(path)}, which is no class path.")
    if _is_named(path) or any(_is_within(module, package) for package in _OWN):
        return _imported(path)
    if module in sys.modules:  # somebody imported it on purpose
        return vars(sys.modules[module]).get(name)
    raise InputError(
        f"The class {path} cannot be imported unless you say so, because no checkpoint decides what is imported: if "
        "you trust it, run this in the folder that fit was run in, with the --config that names it or with "
        f"--trust {module.partition('.')[0]} (in Python: trust=)."
    )


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The class {path} cannot be imported ({error}); run this in the folder that fit was run in."
        ) from error


def _by_name(name: str, slot: _Slot) -> Any:
    """A class by its short name, among those that are imported; None if there is none."""
    kinds = list(slot.kinds)
    for kind in kinds:  # grows while it is walked
        kinds += type.__subclasses__(kind)
    return next((kind for kind in kinds if kind.__name__ == name), None)


def _arguments(kind: Any) -> dict[str | None, _Slot]:
    """What each argument may be; under None, what all others may be if there may be others."""
    slots: dict[str | None, _Slot] = {}
    bases = kind.__mro__ if isinstance(kind, type) else ()
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [kind]:
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # written in C
            return {**slots, None: _Slot(anything=True)}
        hints = _hints(function)
        for name, parameter in list(parameters.items())[len(bases) > 0 :]:  # without self
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                slots.setdefault(name, _Slot.from_hint(hints.get(name, Any)))
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
            return slots  # else they go on to the next class
    return {**slots, None: _Slot(anything=True)}


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # names that are imported for type checkers alone
        scope = getattr(function, "__globals__", {})
        hints: dict[str, Any] = {}
        for name, hint in getattr(function, "__annotations__", {}).items():
            try:
                hints[name] = eval(hint, dict(scope)) if isinstance(hint, str) else hint
            except Exception:  # nobody knows what it is: the parser may
                hints[name] = _UNKNOWN
        return hints


def _leaves(hint: Any) -> Iterator[Any]:
    """The classes that an annotation is made of; a function counts as what it returns."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is _UNKNOWN:
        yield hint
    elif isinstance(hint, TypeAliasType):
        yield from _leaves(hint.__value__)
    elif isinstance(hint, typing.TypeVar):
        yield from _leaves(hint.__bound__ or Any)
    elif origin is typing.Literal:
        yield from (type(value) for value in arguments)
    elif origin is typing.Annotated:
        yield from _leaves(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _leaves(argument)
    elif hint is collections.abc.Callable or origin is collections.abc.Callable:
        returned = _leaves(arguments[-1]) if arguments else ()
        made = [leaf for leaf in returned if leaf not in (Any, _UNKNOWN) and not issubclass(leaf, _PLAIN)]
        yield from made or [collections.abc.Callable]
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from _leaves(arguments[-1])
    elif isinstance(origin, type) and issubclass(origin, Iterable):
        for argument in arguments:
            if argument is not ...:
                yield from _leaves(argument)
    elif hint in (dict, list, tuple, set, object, inspect.Parameter.empty) or not isinstance(origin or hint, type):
        yield Any
    else:
        yield origin or hint


def _gives(function: Any, slot: _Slot) -> bool:
    """Whether a function says that it returns what belongs there."""
    returned = list(_leaves(_hints(function).get("return", Any)))
    return bool(slot.kinds) and all(isinstance(leaf, type) and issubclass(leaf, slot.kinds) for leaf in returned)


def _modules(value: Any) -> Iterator[str]:
    """Modules that a configuration names; Python imports the packages that they lie in as well."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _modules(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _modules(part)
    elif isinstance(value, str) and "." in value and _is_dotted(value):
        parts = value.split(".")[:-1]
        yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _is_named(path: str) -> bool:
    """Whether it lies in a module that the user named."""
    module = path.rpartition(".")[0]
    packages, modules = _TRUSTED.get()
    return module in modules or any(_is_within(module, package) for package in packages)


def _is_known(kind: type) -> bool:
    """Whether it is a network, an optimizer, a callback ..., or derived from a class of this package."""
    return any(
        f"{base.__module__}.{base.__qualname__}" in _KINDS or _is_within(base.__module__, "lightning_attn")
        for base in kind.__mro__
    )


def _is_standard(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names
