"""Pages and figures: texts, bags, attention heads, explanations, and finished runs side by side."""

from lightning_attn.visualization.bag_figure import BagRow, bag_figure
from lightning_attn.visualization.curves import Run, draw_curves, read_run, shared_curves
from lightning_attn.visualization.explain_page import explain_page, head_map
from lightning_attn.visualization.heads_figure import heads_figure
from lightning_attn.visualization.highlight import (
    HighlightRow,
    HighlightSection,
    highlight_figure,
    highlight_html,
    highlight_page,
)
from lightning_attn.visualization.report_page import report_page
from lightning_attn.visualization.silent_failures import Thresholds, Training, failure_rate, read_trainings
from lightning_attn.visualization.silent_failures_page import draw_trainings, scatter

__all__ = [
    "BagRow",
    "HighlightRow",
    "HighlightSection",
    "Run",
    "Thresholds",
    "Training",
    "bag_figure",
    "draw_curves",
    "draw_trainings",
    "explain_page",
    "failure_rate",
    "head_map",
    "heads_figure",
    "highlight_figure",
    "highlight_html",
    "highlight_page",
    "read_run",
    "read_trainings",
    "report_page",
    "scatter",
    "shared_curves",
]
