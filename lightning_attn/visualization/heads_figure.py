"""A map of layers and attention heads that shows which ones are important, and why: `heads_figure`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_attn.attribution.heads.criteria import Criterion
from lightning_attn.attribution.heads.statistics import HeadStatistics
from lightning_attn.ops.text import inert

if TYPE_CHECKING:  # drawing is the only part that needs matplotlib, and it takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of what exceeds the limit; told apart from the grey below it without colours too, by its frame.
_FRAME = "#d55e00"
#: Inches of a cell, and of what stands around the cells of a panel.
_CELL, _AROUND = (0.62, 0.46), (1.5, 1.3)
#: Inches of the whole, so that labels find room beside few layers.
_LEAST = 2.8
_MOST_MARKS = 3


def heads_figure(statistics: HeadStatistics, criteria: Sequence[Criterion], title: str = "") -> Figure:
    """One panel per criterion, independent of pyplot's state: darker is stronger, important attention heads are framed.

    In the frame stands why: relations (``<`` from the word that others depend on), or the offset.

    Args:
        statistics: Of N layers with M attention heads; layer 0, the lowest, stands below.
        criteria: At least one.
        title: Above all panels.
    """
    from matplotlib.figure import Figure

    layers, heads = statistics.offset.shape
    size = len(criteria) * (heads * _CELL[0] + _AROUND[0]), max(layers * _CELL[1] + _AROUND[1], _LEAST)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    panels = figure.subplots(1, len(criteria), squeeze=False)[0]
    for axes, criterion in zip(panels, criteria, strict=True):
        _draw(figure, axes, statistics, criterion)
    if title:
        figure.suptitle(title, fontsize=10)
    return inert(figure)


def _draw(figure: Figure, axes: Axes, statistics: HeadStatistics, criterion: Criterion) -> None:
    from matplotlib.patches import Rectangle

    strength = criterion.strength(statistics).clamp(min=0)
    marks: dict[tuple[int, int], list[str]] = {}
    for mark, mask in criterion.marks(statistics).items():
        for layer, head in mask.nonzero().tolist():
            marks.setdefault((layer, head), []).append(mark)
    highest = max(float(strength.max()), criterion.limit) or 1.0
    image = axes.imshow(strength.numpy(), cmap="Greys", vmin=0, vmax=highest * 2, origin="lower", aspect="auto")
    for (layer, head), names in marks.items():
        corner = head - 0.46, layer - 0.46
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=_FRAME, lw=1.8))
        text = "\n".join(names[:_MOST_MARKS] if len(names) <= _MOST_MARKS else [*names[: _MOST_MARKS - 1], "..."])
        axes.text(head, layer, text, fontsize=6.5, ha="center", va="center", linespacing=0.95)
    axes.set(xticks=range(strength.shape[1]), yticks=range(strength.shape[0]))
    axes.set(xlabel="attention head", ylabel="layer (0 is the lowest)")
    axes.set_title(f"{criterion.name}: {len(marks)} of {strength.numel()}", fontsize=10)
    bar = figure.colorbar(image, ax=axes, boundaries=[highest * step / 100 for step in range(101)])
    bar.set_label(criterion.meaning, fontsize=8)
    ticks = [0, criterion.limit, highest] if highest > criterion.limit else [0, criterion.limit]
    bar.set_ticks(ticks, labels=[f"{tick:.2f}" for tick in ticks])
