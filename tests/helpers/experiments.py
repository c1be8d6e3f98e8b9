"""Records made up for tests; the four callbacks and what they log and write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightning_attn.experiments import (
    AdversarialCallback,
    AdversarialRecord,
    AgreementCallback,
    AgreementRecord,
    CounterfactualCallback,
    CounterfactualRecord,
    ExperimentRecord,
    PermutationCallback,
    PermutationRecord,
)

Record = TypeVar("Record", bound=ExperimentRecord)
SOURCES = ("uniform", "random", "other")


def columns(kind: type[ExperimentRecord], count: int, seed: int = 0) -> dict[str, Any]:
    """Random values of each column, within its range."""
    draw = np.random.default_rng(seed)
    found: dict[str, Any] = {"tokens": draw.integers(2, 30, count).astype(float), "largest_weight": draw.random(count)}
    if kind is AgreementRecord:
        for pair in ("gradient", "loo", "gradient_loo"):
            found |= {f"{pair}_p": draw.random(count), f"{pair}_top": draw.random(count)}
        for pair in ("gradient", "loo", "gradient_loo", "gradient_without_attention"):
            found[f"{pair}_tau"] = draw.uniform(-1, 1, count)
    elif kind is PermutationRecord:
        found["tvd"] = draw.random(count)
    elif kind is AdversarialRecord:
        found |= {"jsd": draw.random(count) * np.log(2), "tvd": draw.random(count) * 0.05}
    else:
        found["correct"] = draw.integers(0, 2, count).astype(float)
        for source in SOURCES:
            found |= {f"{source}/{name}": draw.random(count).round() for name in ("correct", "same_prediction")}
            found[f"{source}/tvd"] = draw.random(count)
    return found


def made(kind: type[Record], count: int = 60, classes: int = 2, names: tuple[str, ...] = ()) -> Record:
    """A record of ``count`` examples."""
    draw = np.random.default_rng(1)
    return kind(
        split="test",
        moment="test",
        settings={},
        classes=names or tuple(f"class {number}" for number in range(classes)),
        index=np.arange(count),
        target=draw.integers(0, classes, count),
        prediction=draw.integers(0, classes, count),
        values=columns(kind, count),
    )


KINDS: tuple[type[ExperimentRecord], ...] = (
    AgreementRecord,
    PermutationRecord,
    AdversarialRecord,
    CounterfactualRecord,
)


CALLBACKS = (AgreementCallback, PermutationCallback, AdversarialCallback, CounterfactualCallback)
NAMES = ("agreement", "permutation", "adversarial", "counterfactual")


def four(**arguments: Any) -> list[Any]:
    return [kind(**{"splits": ["val", "test"], **arguments}) for kind in CALLBACKS]


def ours(run: Any) -> dict[str, float]:
    """What was logged, less ``SPLIT/explanation/``."""
    return {
        name.split("/", 2)[2]: float(value) for name, value in run.callback_metrics.items() if "/explanation/" in name
    }


def document(folder: Path, name: str, split: str = "val") -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads(
        (folder / "explanation" / split / f"{name}.json").read_text(), parse_constant=refuse
    )
    return found
