"""Names of 0.1.0 that README, docs, notebooks, checkpoints or configurations hold.

The folder goes with the next release.

To take it away: delete the folder, the call in `lightning_attn/__init__.py`, the two lines with `__getattr__` in the
packages of :data:`RENAMED`, and the calls of :func:`modernized`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = "lightning_attn"
#: Modules that are gone, and where their names are now.
MOVED = {
    "adversaries": "metrics.adversarial",
    "attention.frozen": "networks",
    "attention.random": "mitigations",
    "attention_heads": "attribution.heads",
    "attribution.kernels": "attribution.lafa.kernels",
    "attribution.neighbour_shap": "attribution.lafa.neighbour_shap",
    "bag_figure": "visualization.bag_figure",
    "callbacks.disagreement": "experiments",
    "callbacks.experiments": "experiments",
    "highlight": "visualization.highlight",
    "modules": "tasks",
    "networks.heads": "networks",
    "neighbours": "attribution.lafa",
    "optimisation": "optim",
    "report": "visualization",
    "report.silent_failures": "visualization.silent_failures",
    "report.silent_failures_page": "visualization.silent_failures_page",
}
_CLASSIFIERS = {
    "Head": "networks.Classifier",
    "LinearHead": "networks.LinearClassifier",
    "MLPHead": "networks.MLPClassifier",
    "PairHead": "networks.PairClassifier",
}
_RANDOM = (
    "BernoulliSubset",
    "Dirichlet",
    "RandomAttention",
    "Shuffled",
    "SoftmaxNormal",
    "UniformShare",
    "UniformSubset",
)
_EXPERIMENTS = (
    "AdversarialCallback",
    "AgreementCallback",
    "CounterfactualCallback",
    "DisagreementCallback",
    "OtherCheckpoint",
    "PermutationCallback",
)
#: Names that are gone from modules of 0.1.0, and what they are now.
RENAMED = {
    "attention": {
        **{name: f"mitigations.{name}" for name in _RANDOM},
        "Even": "mitigations.Uniform",
        "FrozenAttention": "networks.FrozenAttention",
        "attendable": "ops.softmax.attendable",
        "masked_softmax": "ops.softmax.masked_softmax",
    },
    "attention.random": {"Even": "mitigations.Uniform"},
    "attention_heads": {"heads_figure": "visualization.heads_figure"},
    "callbacks": {name: f"experiments.{name}" for name in _EXPERIMENTS},
    "encoders": {"Average": "encoders.TokenMLP"},
    "networks": _CLASSIFIERS,
    "networks.heads": _CLASSIFIERS,
}
_SHORT = {name: new.rpartition(".")[2] for name, new in _CLASSIFIERS.items()} | {
    "Average": "TokenMLP",
    "Even": "Uniform",
}
#: Arguments that take a class by its short name alone, among those above.
_TAKES_SHORT = ("distribution", "encoder", "head")


class _Finder(MetaPathFinder, Loader):
    """Imports a module that is gone: it warns, and imports the new one when it is asked for a name."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname.removeprefix(f"{_PACKAGE}.") in MOVED:
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = renamed(module.__name__)


def install() -> None:
    """Let old module names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def renamed(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module with names of 0.1.0.

    Args:
        module: Its ``__name__``.
    """
    own = module.removeprefix(f"{_PACKAGE}.")

    def __getattr__(name: str) -> Any:  # noqa: N807
        place = RENAMED.get(own, {}).get(name) or (f"{MOVED[own]}.{name}" if own in MOVED else "")
        if place and not name.startswith("__"):
            new, _, attribute = f"{_PACKAGE}.{place}".rpartition(".")
            try:
                value = getattr(importlib.import_module(new), attribute)
            except AttributeError:
                pass
            else:
                _warn(f"{module}.{name}", f"{new}.{attribute}", stacklevel=3)
                return value
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def modernized(specification: Any, warn: bool = False) -> Any:
    """A specification of 0.1.0 with the class paths and short names of today; the one that was given stays as it is.

    Args:
        specification: Plain values, with class paths anywhere among them.
        warn: Whether to say so: where somebody wrote them, and could write something else.
    """
    if isinstance(specification, list):
        return [modernized(part, warn) for part in specification]
    if not isinstance(specification, dict):
        return specification
    new: dict[str, Any] = {}
    for name, part in specification.items():
        if isinstance(part, str) and name in ("class_path", "_class_path", *_TAKES_SHORT):
            new[name] = new_class_path(part, warn)
        elif name == "preset" and isinstance(part, dict):
            new[name] = _preset(part)
        else:
            new[name] = modernized(part, warn)
    return new


#: Classes of 0.1.0 whose place in a preset a plain choice has taken.
_CHOICES = {
    **{"Signed": "signed", "Absolute": "absolute", "PositiveOnly": "positive_only", "SparesLast": "spares_last"},
    **{"SignedDrop": "signed_drop", "AbsoluteDrop": "absolute_drop", "OutputChange": "output_change"},
    **{"EveryBudget": "every", "DistinctBudgets": "distinct", "Predicted": "predicted", "Gold": "gold"},
}


def _preset(given: dict[str, Any]) -> dict[str, Any]:
    """A preset of measures of 0.1.0, written out, as one of plain choices."""
    new: dict[str, Any] = {}
    for name, part in modernized(given).items():
        path = part.get("class_path", "") if isinstance(part, dict) else part
        short = path.rpartition(".")[2] if isinstance(path, str) else ""
        arguments = (part.get("init_args") or {}) if isinstance(part, dict) else {}
        if name == "texts":
            new |= {"count_special": short == "WholeLength", "least_tokens": arguments.get("least", 2)}
        elif short == "Fixed":
            new[name] = arguments.get("number")
        else:
            new[name] = _CHOICES.get(short, part)
    return new


def modernized_options(options: Sequence[str]) -> list[str]:
    """Options of the command line with the short names and class paths of today."""
    new: list[str] = []
    for option in options:
        name, equals, value = option.partition("=") if option.startswith("--") else (new[-1] if new else "", "", option)
        if name.startswith("--") and name.rpartition(".")[2] in ("class_path", *_TAKES_SHORT) and value:
            value = new_class_path(value, warn=True)
            option = f"{name}={value}" if equals else value
        new.append(option)
    return new


def new_class_path(path: str, warn: bool = False) -> str:
    """Where a class of 0.1.0 is now; any other path, as it is."""
    module, _, name = path.removeprefix(f"{_PACKAGE}.").rpartition(".")
    if not module and "." not in path:
        new = _SHORT.get(path, path)
    elif not path.startswith(f"{_PACKAGE}."):
        new = path
    elif name in RENAMED.get(module, {}):
        new = f"{_PACKAGE}.{RENAMED[module][name]}"
    else:
        parts = module.split(".")
        places = [end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in MOVED]
        new = path
        if places:
            rest = parts[places[0] :]
            new = ".".join([_PACKAGE, MOVED[".".join(parts[: places[0]])], *rest, name])
    if warn and new != path:
        _warn(path, new, stacklevel=3)
    return new


def _warn(old: str, new: str, stacklevel: int) -> None:
    warnings.warn(
        f"{old} is now called {new}; the old name goes with the next release.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
