"""The curves of finished runs, read from their folders and drawn side by side."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_attn.errors import InputError
from lightning_attn.ops.text import inert
from lightning_attn.runs.folder import METRICS

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
            if row.get("epoch") == "":  # some callbacks log by the step alone
                continue
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
    """One panel per metric, one line per run, dotted while attention is random and the scorer has not started to learn.

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
    for metric, axis in zip(metrics, axes, strict=False):  # in this order: zip must not take an axis it has no use for
        for number, run in enumerate(runs):
            points: Mapping[int, float] = run.curves.get(metric, {})
            epochs, values = [epoch + 1 for epoch in points], list(points.values())
            phase = run.curves.get("mitigation/phase", {})
            start = next((place for place, epoch in enumerate(points) if phase.get(epoch, 1) != 0), len(epochs))
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(epochs[start:], values[start:], marker="o", ms=3, color=colour)
            axis.plot(epochs[: start + 1], values[: start + 1], ls=":", color=colour)
        axis.set_title(metric.split("/", 1)[-1].replace("_", " "), fontsize=10)
        axis.set_xlabel("epoch", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    for axis in list(axes):
        axis.set_axis_off()
    lines = figure.axes[0].lines[::2] if metrics else []
    figure.legend(lines, [run.name for run in runs], loc="outside lower center", ncols=len(runs), frameon=False)
    return inert(figure)
