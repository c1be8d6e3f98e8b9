"""The figures of ``results/sets.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.sets.training import SIZES
from lightning_attn.visualization.curves import COLOURS
from lightning_attn.visualization.silent_failures import Thresholds, Training
from lightning_attn.visualization.silent_failures_page import draw_trainings

_STYLE = {"font.size": 9, "axes.titlesize": 10, "legend.frameon": False, "svg.hashsalt": "lightning_attn"}


def draw_scatter(panels: Mapping[str, Sequence[Training]], limits: Thresholds, columns: int = 4) -> Figure:
    """One panel per task: bag AUROC against attention AUROC of every training and ensemble."""
    with matplotlib.rc_context(_STYLE):
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(3.3 * columns, 3.1 * rows + 0.5), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis, (title, trainings) in zip(axes, panels.items(), strict=False):
            draw_trainings(axis, trainings, limits)
            axis.set(title=title, xlabel="bag AUROC", ylabel="attention AUROC", xlim=(0.48, 1.02), ylim=(0.18, 1.02))
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        names = [label.split(" (")[0] for label in labels]
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def draw_ensembles(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], columns: int = 3) -> Figure:
    """Attention AUROC against the size of the ensemble: mean over draws, and from their worst to their best.

    Args:
        curves: By panel and task, for each of `SIZES` the figures of the ensembles drawn.
        columns: Panels side by side.
    """
    with matplotlib.rc_context(_STYLE):
        rows = -(-len(curves) // columns)
        figure = Figure(figsize=(3.6 * columns, 3.0 * rows + 0.6), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        places = np.arange(len(SIZES))
        for axis, (title, tasks) in zip(axes, curves.items(), strict=True):
            for number, (task, values) in enumerate(tasks.items()):
                colour = COLOURS[number % len(COLOURS)]
                means = [np.mean(drawn) for drawn in values]
                axis.plot(places, means, marker="osD^vP*"[number % 7], ms=4, color=colour, label=task)
                axis.fill_between(
                    places, [min(drawn) for drawn in values], [max(drawn) for drawn in values], color=colour, alpha=0.1
                )
            axis.set_xticks(places, [str(size) for size in SIZES])
            axis.set(title=title, xlabel="members", ylabel="attention AUROC", ylim=(0.48, 1.02))
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7))
    return figure
