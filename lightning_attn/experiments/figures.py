"""The figures of the experiments: histograms by class, changes against the largest weight, bars of sources."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightning_attn.experiments.record import ExperimentRecord, Floats
from lightning_attn.ops.text import inert, visible
from lightning_attn.visualization.curves import COLOURS

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: One colour per class, and one for what is pooled.
_COLOURS = COLOURS[:6]
_POOLED = "#888888"
#: Classes that get a colour of their own; with more, the most frequent ones do, and the rest is pooled.
MOST_CLASSES = len(_COLOURS)
#: Edges of the largest weight, as in Jain and Wallace.
_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
#: With fewer values, single points say more than the outline of a density.
_FEW = 12
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.dpi": 130,
}


@dataclass(frozen=True)
class Group:
    """Examples that share a colour.

    Attributes:
        name: Of the class, or of what is pooled.
        colour: As matplotlib reads it.
        rows: One bool per example of the record, shape ``(N,)``.
    """

    name: str
    colour: str
    rows: Any


def groups(record: ExperimentRecord) -> list[Group]:
    """The examples by predicted class: at most six colours, what has none pooled in grey."""
    classes, counts = np.unique(record.prediction, return_counts=True)
    coloured = list(classes)
    if len(classes) > MOST_CLASSES:
        # One colour less, so that the legend stays within the limit; ties go to the class that comes first.
        coloured = sorted(classes[np.argsort(-counts, kind="stable")[: MOST_CLASSES - 1]])
    result = [
        Group(_cut(visible(record.classes[number])), colour, record.prediction == number)
        for number, colour in zip(coloured, _COLOURS, strict=False)
    ]
    if rest := len(classes) - len(coloured):
        result.append(Group(f"{rest} other classes", _POOLED, ~np.isin(record.prediction, coloured)))
    return result


@contextmanager
def canvas(record: ExperimentRecord, columns: int, width: float = 4.6) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A titled figure of panels side by side, in the style of all figures here; independent of pyplot's state.

    Args:
        record: Named in the title, with its split and its number of examples.
        columns: Panels.
        width: Of a panel, in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, 4.3), layout=ConstrainedLayoutEngine(w_pad=0.12))
        axes = figure.subplots(1, columns, squeeze=False)[0]
        noun = "example" if len(record) == 1 else "examples"
        figure.suptitle(f"{record.title}   ({record.split}, {len(record):,} {noun})", fontsize=12, fontweight="bold")
        yield figure, axes
        inert(figure)


def legend(figure: Figure, record: ExperimentRecord, *marks: Literal["mean", "median"]) -> None:
    """Name the classes below the panels, with the number of examples that were predicted to be of each.

    Args:
        figure: From :func:`canvas`.
        record: Gives the classes.
        *marks: What else is to be explained: the dashed lines of :func:`histogram`, the dots of the densities.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    classes = groups(record)
    grey: dict[str, Any] = {"color": "#555555"}
    dot: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "markersize": 5, "linewidth": 4}
    handles = {"mean": Line2D([], [], linestyle="--", **grey), "median": Line2D([], [], **grey, **dot)}
    figure.legend(
        [*(Patch(color=group.colour, alpha=0.75) for group in classes), *(handles[mark] for mark in marks)],
        [
            *(f"{group.name} (n = {int(group.rows.sum()):,})" for group in classes),
            *({"mean": "mean of the class", "median": "median and quartiles"}[mark] for mark in marks),
        ],
        title="predicted class",
        loc="outside lower center",
        ncols=min(len(classes) + len(marks), 4),
    )


def histogram(
    axes: Axes, record: ExperimentRecord, name: str, label: str, limits: tuple[float, float], title: str, note: str
) -> None:
    """Draw how a value is distributed in each class, in per cent of the class, and its mean.

    Args:
        axes: Panel.
        record: Gives the values and the classes.
        name: Which value; examples where it is undefined are left out.
        label: Of the horizontal axis.
        limits: Range of the value.
        title: Of the panel.
        note: What the numbers say, below the title.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [(group, _defined(record.values[name][group.rows])) for group in groups(record)]
    shown = [(group, values) for group, values in shown if len(values)]
    # Outlines of many classes stay readable where they have few steps, and no fillings that cover each other.
    bins = np.linspace(*limits, 31 if len(shown) <= 2 else 16)
    for group, values in shown:
        heights = np.histogram(np.clip(values, *limits), bins)[0] / len(values)
        if len(shown) <= 2:
            axes.stairs(100 * heights, bins, fill=True, color=group.colour, alpha=0.35)
        axes.stairs(100 * heights, bins, color=group.colour, linewidth=1.6)
        axes.axvline(values.mean(), color=group.colour, linestyle="--", linewidth=1.2)
    axes.set(xlim=limits, xlabel=label, ylabel="share of the class (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_title(f"{title}\n{note if shown else 'undefined for every example'}")
    axes.set_ylim(0, None if shown else 1)


def against_largest_weight(axes: Axes, record: ExperimentRecord, name: str, label: str, top: float) -> None:
    """Draw how a value is distributed in each class, over four ranges of the largest attention weight.

    Args:
        axes: Panel.
        record: Gives the values, ``largest_weight`` among them, and the classes.
        name: Which value; examples where it is undefined are left out.
        label: Of the vertical axis.
        top: Largest possible value; the smallest is 0.
    """
    values, largest = record.values[name], record.values["largest_weight"]
    place = np.digitize(largest, _EDGES[1:-1])
    defined = ~np.isnan(values) & ~np.isnan(largest)
    classes = groups(record)
    ticks = []
    for number, (low, high) in enumerate(itertools.pairwise(_EDGES)):
        here = defined & (place == number)
        ticks.append(f"{low:g} to {high:g}\nn = {int(here.sum()):,}")
        for order, group in enumerate(classes):
            centre = number + (order - (len(classes) - 1) / 2) * 0.86 / len(classes)
            _distribution(axes, values[here & group.rows], centre, 0.8 / len(classes), group.colour)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set(xlim=(-0.5, len(ticks) - 0.5), ylim=(-0.02 * top, 1.02 * top), ylabel=label, xlabel="largest weight")
    axes.grid(visible=False, axis="x")


def bars(axes: Axes, heights: Mapping[str, float | None], label: str, reference: str) -> None:
    """Draw one bar per name, with its value in it, and a line at the height of one of them.

    Args:
        axes: Panel.
        heights: By name, a share in [0, 1]; None leaves the place empty.
        label: Of the vertical axis.
        reference: Name of the bar that the others are compared with.
    """
    for number, (name, height) in enumerate(heights.items()):
        colour, ink = ("#555555", "white") if name == reference else (_COLOURS[5], "black")
        drawn = axes.bar(number, height or 0.0, width=0.6, color=colour)
        axes.bar_label(drawn, ["-" if height is None else f"{height:.3f}"], label_type="center", color=ink)
    if (height := heights[reference]) is not None:
        axes.axhline(height, color="#555555", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(heights)), [visible(name).replace(" ", "\n") for name in heights])
    axes.set(ylim=(0, 1), ylabel=label)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.grid(visible=False, axis="x")


def by_source(axes: Axes, record: ExperimentRecord, names: Mapping[str, str], label: str, top: float) -> None:
    """Draw how several values are distributed in each class, side by side.

    Args:
        axes: Panel.
        record: Gives the values and the classes.
        names: By what is written below it, the name of the value.
        label: Of the vertical axis.
        top: Largest possible value; the smallest is 0.
    """
    classes = groups(record)
    for number, name in enumerate(names.values()):
        for order, group in enumerate(classes):
            centre = number + (order - (len(classes) - 1) / 2) * 0.86 / len(classes)
            _distribution(axes, _defined(record.values[name][group.rows]), centre, 0.8 / len(classes), group.colour)
    axes.set_xticks(range(len(names)), [visible(name).replace(" ", "\n") for name in names])
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(-0.02 * top, 1.02 * top), ylabel=label)
    axes.grid(visible=False, axis="x")


def _distribution(axes: Axes, values: Floats, centre: float, width: float, colour: str) -> None:
    """The outline of the density with quartiles and median; single points where there are few, or all are alike."""
    if len(values) >= _FEW and np.ptp(values) > 1e-6:
        drawn: Any = axes.violinplot(values, [centre], widths=width, showextrema=False, points=200)
        drawn["bodies"][0].set(facecolor=colour, edgecolor=colour, alpha=0.45)
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        axes.vlines(centre, low, high, color=colour, linewidth=4)
        axes.plot(centre, middle, "o", color="white", markeredgecolor=colour, markersize=5, zorder=3)
    elif len(values):
        # Beside each other in the order of the values: a fixed rule, so that the same numbers give the same picture.
        shift = (np.arange(len(values)) % 5 - 2) / 5 * 0.5 * width
        axes.plot(centre + shift, np.sort(values), "o", color=colour, markersize=4, alpha=0.7, linestyle="none")


def _defined(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _cut(name: str, length: int = 24) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
