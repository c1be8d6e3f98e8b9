"""The figures of ``results/shortcut.md``."""

from __future__ import annotations

import matplotlib
import numpy as np

from benchmarks.shortcut.arms import OURS, PUBLISHED
from benchmarks.tables import Table

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

#: Of the arms that a reader looks for; all others are grey.
COLOURS = {"none": "tab:red", PUBLISHED: "tab:orange", OURS: "tab:blue"}
PANELS = {
    "head_bits": "head bits: what the network's own head reads",
    "leaked_bits": "leaked bits: what a fresh probe reads",
}


def draw_bits(table: Table) -> Figure:
    """Head bits and leaked bits, a row per arm, a point per training, and their mean as a stroke."""
    rows = list(table.rows)
    size = (10, 0.3 * len(rows) + 1.2)
    figure, axes = plt.subplots(1, len(PANELS), figsize=size, sharex=True, sharey=True, layout="constrained")
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for place, row in enumerate(rows):
            bits, colour = table.figures(row, name), COLOURS.get(row, "0.45")
            axis.scatter(bits, [place] * len(bits), s=26, color=colour, alpha=0.6, linewidths=0)
            if bits:
                axis.plot([np.mean(bits)] * 2, [place - 0.35, place + 0.35], color=colour, lw=2)
        axis.axvline(0, color="0.8", lw=1, zorder=0)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    for label, row in zip(axes[0].get_yticklabels(), rows, strict=True):
        label.set_color(COLOURS.get(row, "black"))
        label.set_fontweight("bold" if row in COLOURS else "normal")
    figure.supxlabel("bits about the label, out of 1", fontsize=9)
    return figure
