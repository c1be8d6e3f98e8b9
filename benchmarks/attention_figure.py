"""The figure of ``benchmarks.attention_is_not_explanation``: SST beside the publication, and after mitigation."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.attention_page import ARMS, MODELS, PUBLISHED, Measurements
from lightning_attn.visualization.curves import COLOURS

_STYLE = {"font.size": 9, "axes.titlesize": 10, "legend.frameon": False, "axes.spines.top": False}
_NAMES = {"bilstm": "BiLSTM", "cnn": "CNN", "average": "Average"}


def draw(found: Measurements) -> Figure:
    """Two panels: agreement of attention with gradients beside the published one, and what mitigations change.

    Args:
        found: With every model of SST under every arm.
    """
    with matplotlib.rc_context({**_STYLE, "axes.spines.right": False}):
        figure = Figure(figsize=(10.5, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        places = np.arange(len(MODELS))
        series = {"attention, gradients": "gradient", "attention, leave-one-out": "loo"}
        series["gradients, leave-one-out (yardstick)"] = "gradient_loo"
        for number, (label, name) in enumerate(series.items()):
            shift = (number - 1) * 0.22
            _points(left, found, places + shift, name, "none", COLOURS[number], "osD"[number], label)
            column = {"gradient": 1, "loo": 3, "gradient_loo": 5}[name]
            published = [PUBLISHED[model][column] for model in MODELS]
            left.plot(
                places + shift, published, "_", ms=11, mew=2, color="0.25", label="published" if not number else None
            )
        left.set(title="SST: Kendall's tau of two rankings of the words", ylabel="tau, mean over sentences")
        for number, arm in enumerate(ARMS):
            shift = (number - 1.5) * 0.19
            _points(
                right, found, places + shift, "gradient", arm, COLOURS[number], "osD^"[number], arm.replace("_", " ")
            )
        right.set(title="Attention and gradients, after each mitigation")
        for axes in (left, right):
            axes.set_xticks(places, [f"{_NAMES[encoder]}\n{attention}" for encoder, attention in MODELS])
            axes.axhline(0, color="0.5", lw=0.8)
            axes.grid(axis="y", alpha=0.25)
            axes.set_ylim(-0.25, 0.8)
            axes.legend(loc="lower left", fontsize=8, ncols=2)
        return figure


def _points(
    axes: Axes, found: Measurements, places: np.ndarray, name: str, arm: str, colour: str, marker: str, label: str
) -> None:
    """Mean and standard deviation over seeds of each model."""
    columns = [
        found.column(name, task="sst", encoder=encoder, attention=attention, arm=arm) for encoder, attention in MODELS
    ]
    means, deviations = [np.mean(one) for one in columns], [np.std(one, ddof=1) for one in columns]
    axes.errorbar(places, means, deviations, fmt=marker, ms=5, color=colour, capsize=2, lw=1.2, label=label)
