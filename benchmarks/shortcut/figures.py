"""The figures of ``results/shortcut.md``."""

from __future__ import annotations

import matplotlib
import numpy as np

from benchmarks.tables import Table

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def draw_bits(table: Table) -> Figure:
    """Head bits and leaked bits against accuracy, a point a training."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharex=True, sharey=True, layout="constrained")
    colours = plt.get_cmap("tab20")
    for axis, name in zip(axes, ("head_bits", "leaked_bits"), strict=True):
        for number, row in enumerate(table.rows):
            accuracy, bits = table.figures(row, "accuracy"), table.figures(row, name)
            axis.scatter(accuracy[: len(bits)], bits, s=22, color=colours(number % 20), label=row)
        error = 1 - np.linspace(0.5, 0.95, 100)
        fano = 1 + error * np.log2(error) + (1 - error) * np.log2(1 - error)
        axis.plot(1 - error, fano, color="0.7", lw=1, zorder=0, label="Fano")
        axis.set(xlabel="accuracy", ylabel="bits", title=name.replace("_", " "))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure
