"""The curves of finished runs, read from their folders and drawn side by side."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_attn.run_folder import METRICS
from lightning_attn.types import InputError

if TYPE_CHECKING:  # drawing is the only part that needs matplotlib, and it takes a second to import
    from matplotlib.figure import Figure

#: What is drawn if nothing is chosen, as far as it was logged.
DEFAULT_CURVES = (
    "val/accuracy",
    "val/faithfulness/kendall_gradient",
    "val/faithfulness/kendall_loo",
    "val/faithfulness/comprehensiveness",
    "val/faithfulness/sufficiency",
    "val/plausibility/auprc",
    "val/shortcut/leaked_bits",
    "mitigation/effective_sample_size",
)
#: Told apart by colour-blind readers too (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass
class Run:
    """What a run logged.

    Attributes:
        name: Shown in legends.
        curves: By metric, its value in each epoch.
    """

    name: str
    curves: dict[str, dict[int, float]]


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """Read ``metrics.csv`` of a run folder.

    Args:
        folder: A folder that ``lightning fit`` made.
        name: Shown in legends; None means the folder's name.

    Raises:
        InputError: The folder is no run's, or its file cannot be read.
    """
    path = Path(folder) / METRICS
    if not path.is_file():
        raise InputError(f"{folder} is not the folder of a run: it has no {METRICS}.")
    curves: dict[str, dict[int, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                epoch = int(float(row.pop("epoch")))
                for metric, value in row.items():
                    if value and metric != "step":
                        curves.setdefault(metric, {})[epoch] = float(value)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path}, line {number}: not a row of figures with an epoch ({error}).") from error
    return Run(name or Path(folder).resolve().name, curves)


def shared_curves(runs: Sequence[Run], wanted: Sequence[str] | None = None) -> list[str]:
    """Metrics to draw: those wanted, or the default ones that some run logged.

    Raises:
        InputError: No run logged a metric that was asked for.
    """
    logged = {metric for run in runs for metric in run.curves}
    if wanted and (unknown := [metric for metric in wanted if metric not in logged]):
        raise InputError(f"No run logged {unknown[0]!r}; logged were {', '.join(sorted(logged))}.")
    return list(wanted or [metric for metric in DEFAULT_CURVES if metric in logged])


def draw_curves(runs: Sequence[Run], metrics: Sequence[str], columns: int = 4) -> Figure:
    """One panel a metric, one line a run.

    Args:
        runs: At least one.
        metrics: Names as they were logged.
        columns: Panels side by side.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(columns, len(metrics)) or 1
    rows = math.ceil(len(metrics) / columns) or 1
    figure = Figure(figsize=(3.1 * columns, 2.4 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, metric in zip(axes, metrics, strict=False):
        for number, run in enumerate(runs):
            points: Mapping[int, float] = run.curves.get(metric, {})
            epochs = [epoch + 1 for epoch in points]
            axis.plot(epochs, list(points.values()), marker="o", ms=3, color=COLOURS[number % len(COLOURS)])
        axis.set_title(metric.split("/", 1)[-1].replace("_", " "), fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    for axis in list(axes):
        axis.set_axis_off()
    lines = [figure.axes[0].lines[number] for number in range(len(runs))] if metrics else []
    figure.legend(lines, [run.name for run in runs], loc="outside lower center", ncols=len(runs), frameon=False)
    figure.supxlabel("epoch", fontsize=10)
    return figure
