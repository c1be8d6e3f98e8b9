"""From cells and results to the columns and differences that pages and figures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cells import Cell, Results, key, markdown_table, mean_and_deviation
from benchmarks.kept import unpacked
from benchmarks.paired import METRICS, Array, Difference, metric_of, paired


@dataclass(frozen=True)
class Table:
    """The finished cells of one table, by the name of their row and their seed."""

    rows: Mapping[str, Mapping[int, Mapping[str, object]]]
    wanted: int

    @classmethod
    def from_cells(cls, cells: Sequence[Cell], results: Results, names: Sequence[str] | None = None) -> Table:
        """Rows are arms, unless ``names`` gives each cell another."""
        rows: dict[str, dict[int, Mapping[str, object]]] = {}
        for number, cell in enumerate(cells):
            name = cell["arm"] if names is None else names[number]
            rows.setdefault(name, {})
            if key(cell) in results:
                rows[name][cell["seed"]] = results[key(cell)]
        return cls(rows, len(cells))

    @property
    def done(self) -> int:
        """Number of finished cells."""
        return sum(len(seeds) for seeds in self.rows.values())

    def figures(self, row: str, name: str) -> list[float]:
        """A figure of every finished seed; empty if there is none."""
        found = [result["figures"].get(name) for result in self.rows.get(row, {}).values()]  # type: ignore[attr-defined]
        return [value for value in found if value is not None and not np.isnan(value)]

    def difference(self, row: str, reference: str, name: str) -> Difference | None:
        """Over the seeds that both have; None if there is none."""
        mine, theirs = self.rows.get(row, {}), self.rows.get(reference, {})
        pairs = [(_row(mine[seed], name), _row(theirs[seed], name)) for seed in sorted(set(mine) & set(theirs))]
        both = [(one, other) for one, other in pairs if one is not None and other is not None]
        return paired([one for one, _ in both], [other for _, other in both])

    def means(self, columns: Sequence[str]) -> str:
        """Mean and standard deviation over seeds, a row per arm; columns without any figure are left out."""
        columns = [name for name in columns if any(self.figures(row, name) for row in self.rows)]
        lines = []
        for row, seeds in self.rows.items():
            values = [mean_and_deviation(self.figures(row, name)) for name in columns]
            lines.append([row, str(len(seeds)), *values])
        return markdown_table(["arm", "seeds", *(label(name) for name in columns)], lines)

    def intervals(self, columns: Sequence[str]) -> str:
        """Mean and its 95 % interval over seeds and examples, a row per arm."""
        lines = []
        for row, seeds in self.rows.items():
            values = []
            for name in columns:
                known = [one for one in (_row(result, name) for result in seeds.values()) if one is not None]
                found = paired(known, [np.zeros_like(one) for one in known])
                values.append("-" if found is None else f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
            lines.append([row, *values])
        return markdown_table(["arm", *(label(name) for name in columns)], lines)

    def differences(self, columns: Sequence[str], reference: str = "none") -> str:
        """Difference to a row, and the verdict."""
        found = {
            row: [self.difference(row, reference, name) for name in columns] for row in self.rows if row != reference
        }
        kept = [number for number in range(len(columns)) if any(values[number] for values in found.values())]
        lines = [[row, *(judged(values[number], columns[number]) for number in kept)] for row, values in found.items()]
        return markdown_table(["arm", *(label(columns[number]) for number in kept)], lines)


def judged(difference: Difference | None, name: str) -> str:
    """A difference with its verdict."""
    return "-" if difference is None else f"{difference} {difference.verdict(metric_of(name).direction)}"


def label(name: str) -> str:
    """Heading of a column, with an arrow that says which way is better."""
    metric = METRICS.get(name.split("/")[-1])
    if metric is None:
        return name.replace("_", " ")
    return f"{metric.label} {'↑' if metric.direction > 0 else '↓'}"


def _row(result: Mapping[str, object], name: str) -> Array | None:
    text = result["rows"].get(name)  # type: ignore[attr-defined]
    return None if text is None else unpacked(text)
