"""A picture of paired differences with their intervals: `draw_differences`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np

from benchmarks.paired import metric_of
from benchmarks.tables import Table, label

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = {"better": "tab:green", "worse": "tab:red", "undecided": "0.5"}


def draw_differences(table: Table, columns: Sequence[str], reference: str = "none") -> Figure:
    """A panel a metric: difference of every arm to a reference, with its interval, coloured by the verdict."""
    rows = [row for row in table.rows if row != reference]
    figure, axes = plt.subplots(
        1, len(columns), figsize=(2.4 * len(columns) + 2, 0.28 * len(rows) + 1.2), sharey=True, layout="constrained"
    )
    for axis, name in zip(np.atleast_1d(axes), columns, strict=True):
        axis.axvline(0, color="0.8", lw=1)
        for place, row in enumerate(rows):
            found = table.difference(row, reference, name)
            if found is not None:
                colour = COLOURS[found.verdict(metric_of(name).direction)]
                axis.plot([found.low, found.high], [place, place], color=colour, lw=1.5)
                axis.plot([found.mean], [place], "o", color=colour, ms=4)
        version = {"b": "B: ", "c": "C: ", "mask_lrp": "Mask-LRP: "}.get(name.split("/")[0], "")
        axis.set_title(version + label(name), fontsize=7)
        axis.tick_params(labelsize=7)
        axis.set_yticks(range(len(rows)), rows)
        axis.set_ylim(len(rows) - 0.5, -0.5)
    return figure
