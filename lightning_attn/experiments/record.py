"""The result of an experiment, one row per example: `ExperimentRecord`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # drawing is the only part that needs matplotlib, and it takes a second to import
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Summary = dict[str, float | int | None]
Record = TypeVar("Record", bound="ExperimentRecord")


@dataclass
class ExperimentRecord(ABC):
    """The result of an experiment: values of N examples in plain arrays, their summary, and their figures.

    Examples are grouped by the class that is explained, the most probable one.

    Attributes:
        split: ``val`` or ``test``.
        moment: ``epoch 3``, ``validate`` or ``test``: when it was measured.
        settings: How it was measured, as plain values.
        classes: Names of the classes.
        index: Rows of the data set, ascending, shape ``(N,)``.
        target: True class, shape ``(N,)``; of multi-label data 0 or 1 per class, shape ``(N, C)``.
        prediction: Most probable class, shape ``(N,)``.
        values: By name, one number per example, shape ``(N,)``, NaN where it is undefined.
    """

    #: Name of the experiment in files and figures.
    name: ClassVar[str]
    #: What the experiment asks, in a few words.
    title: ClassVar[str]
    #: Means of the summary that are logged for each class as well.
    headlines: ClassVar[tuple[str, ...]]
    #: What the names of the summary mean, for a person; a name that says it all is missing here.
    words: ClassVar[Mapping[str, str]] = {}

    split: str
    moment: str
    settings: dict[str, Any]
    classes: tuple[str, ...]
    index: Ints
    target: npt.NDArray[Any]
    prediction: Ints
    values: dict[str, Floats]

    @abstractmethod
    def summary(self) -> Summary:
        """Figures over the examples where they are defined, None where they are for none; and counts."""

    @abstractmethod
    def figures(self) -> dict[str, Figure]:
        """By the name of the file, the figures that the field knows."""

    def __len__(self) -> int:
        """Number of examples N."""
        return len(self.index)

    def select(self: Record, rows: npt.NDArray[np.bool_] | Ints) -> Record:
        """The record of some examples, selected by positions or by one bool per example."""
        return replace(
            self,
            index=self.index[rows],
            target=self.target[rows],
            prediction=self.prediction[rows],
            values={name: values[rows] for name, values in self.values.items()},
        )

    def by_class(self: Record) -> dict[str, Record]:
        """By its name, the record of each class that was predicted, in the order of the classes."""
        return {self.classes[number]: self.select(self.prediction == number) for number in np.unique(self.prediction)}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file: NaN becomes None, numbers have six digits."""
        return {
            "experiment": self.name,
            "split": self.split,
            "moment": self.moment,
            "settings": self.settings,
            "classes": list(self.classes),
            "examples": len(self),
            "summary": _rounded(self.summary()),
            "by_predicted_class": {
                name: {"examples": len(part), **_rounded(part.summary())} for name, part in self.by_class().items()
            },
            "rows": self.rows(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per example: ``index``, ``label``, ``prediction`` and the values, None where undefined."""
        columns = {name: values.tolist() for name, values in self.values.items()}
        return [
            {
                "index": index,
                "label": self._label(self.target[row]),
                "prediction": self.classes[self.prediction[row]],
                **_rounded({name: column[row] for name, column in columns.items()}),
            }
            for row, index in enumerate(self.index.tolist())
        ]

    def _label(self, target: Any) -> str | list[str]:
        if self.target.ndim == 1:
            return self.classes[int(target)]
        return [self.classes[number] for number in np.flatnonzero(target)]


def joined(parts: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Columns of several parts, an example that is in two of them once, in the order of ``index``.

    Args:
        parts: Columns by name, with ``index`` among them; the same names in each.
    """
    if not parts:
        return {}
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first = np.unique(columns["index"], return_index=True)
    return {name: column[first] for name, column in columns.items()}


def mean(values: Floats) -> float | None:
    """Mean of the defined values; None if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def deviation(values: Floats) -> float | None:
    """Standard deviation of the defined values, as that of a population; None if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.std()) if len(defined) else None


def median(values: Floats) -> float | None:
    """Median of the defined values; None if there is none."""
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if len(defined) else None


def share(values: Floats, condition: npt.NDArray[np.bool_]) -> float | None:
    """Share of the examples with a defined value that fulfil a condition; None if there is none."""
    defined = ~np.isnan(values)
    return float(condition[defined].mean()) if defined.any() else None


def undefined(values: Floats) -> int:
    """Number of examples without a value."""
    return int(np.isnan(values).sum())


def _rounded(values: Mapping[str, float | int | None]) -> Summary:
    """Six digits, more than which nothing here has, in what JSON can hold."""
    return {name: _number(value) for name, value in values.items()}


def _number(value: float | int | None) -> float | int | None:
    if value is None or isinstance(value, int):
        return value
    return None if math.isnan(value) else float(f"{value:.6g}")
