"""Bags of images drawn as rows, each image under the weight that it got: `bag_figure`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightning_attn.ops.text import inert

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The weight, and the frame of a key instance: told apart by colour-blind readers too (Okabe and Ito, 2008).
_WEIGHT, _KEY = "#d55e00", "#0072b2"
#: Inches of an image, of the bar above it, and of the caption to the left.
_IMAGE, _BAR, _CAPTION = 0.55, 0.3, 1.9


@dataclass
class BagRow:
    """One bag under one set of weights.

    Attributes:
        caption: To the left of its images; may have several lines.
        images: One per instance, shape ``(n, H, W)`` or ``(n, C, H, W)`` with 1 or 3 channels, of any range.
        weights: Attention on each, shape ``(n,)``.
        keys: 1 on key instances, shape ``(n,)``; None without evidence.
    """

    caption: str
    images: Tensor
    weights: Tensor
    keys: Tensor | None = None


def is_image(feature_shape: Sequence[int] | None) -> bool:
    """Whether instances of this shape can be drawn: ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)``."""
    return feature_shape is not None and (
        len(feature_shape) == 2 or (len(feature_shape) == 3 and feature_shape[0] in (1, 3))
    )


def bag_figure(rows: Sequence[BagRow], most: int = 20) -> Figure:
    """The bags drawn one below the other; independent of pyplot's state.

    Above each image stands a bar as high as its weight relative to the largest of the bag, and the weight itself; the
    images stand in the order of their weights, so that a large bag shows those that count. Key instances have a frame.

    Args:
        rows: At least one.
        most: Images of a bag that are shown; the caption says how many are not.
    """
    from matplotlib.figure import Figure

    columns = min(most, max(len(row.weights) for row in rows))
    size = (_CAPTION + columns * _IMAGE, len(rows) * (_IMAGE + _BAR) + 0.2)
    figure = Figure(figsize=size, dpi=130)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(-_CAPTION, columns * _IMAGE), ylim=(size[1] - 0.1, -0.1))
    axes.set_axis_off()
    for number, row in enumerate(rows):
        _draw(axes, row, number * (_IMAGE + _BAR), columns)
    return inert(figure)


def _draw(axes: Axes, row: BagRow, top: float, columns: int) -> None:
    from matplotlib.patches import Rectangle

    count = len(row.weights)
    caption = row.caption if count <= columns else f"{row.caption}\n{count - columns} more images"
    middle = top + _BAR + _IMAGE / 2
    axes.text(-_CAPTION + 0.1, middle, caption, fontsize=8, va="center", color="0.3")
    largest = float(row.weights.max()) or 1.0
    lowest, highest = float(row.images.min()), float(row.images.max())
    for place, instance in enumerate(row.weights.argsort(descending=True, stable=True)[:columns].tolist()):
        left, weight = place * _IMAGE, float(row.weights[instance])
        inner = (left + 0.03, left + _IMAGE - 0.03)
        height = (_BAR - 0.16) * weight / largest
        axes.add_patch(Rectangle((inner[0], top + _BAR - height), inner[1] - inner[0], height, color=_WEIGHT, lw=0))
        axes.text(left + _IMAGE / 2, top + _BAR - height - 0.02, f"{weight:.2f}", fontsize=6, ha="center", va="bottom")
        image = row.images[instance].cpu().numpy()
        if image.ndim == 3:
            image = image[0] if len(image) == 1 else np.moveaxis((image - lowest) / ((highest - lowest) or 1.0), 0, -1)
        extent = (*inner, top + _BAR + _IMAGE - 0.03, top + _BAR + 0.03)
        axes.imshow(image, cmap="gray_r", vmin=lowest, vmax=highest, extent=extent, aspect="auto")
        if row.keys is not None and row.keys[instance] > 0:
            frame = (inner[0], top + _BAR + 0.03), inner[1] - inner[0], _IMAGE - 0.06
            axes.add_patch(Rectangle(*frame, fill=False, edgecolor=_KEY, lw=2))
    axes.set(xlim=(-_CAPTION, columns * _IMAGE), ylim=axes.get_ylim())  # imshow moves them
