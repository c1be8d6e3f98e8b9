"""Text that gives orders to a terminal, a page or a figure is shown and obeyed nowhere."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from lightning_attn.experiments import PermutationRecord
from lightning_attn.ops.text import in_page, to_json, visible
from lightning_attn.visualization import (
    BagRow,
    HighlightRow,
    HighlightSection,
    Run,
    Training,
    bag_figure,
    draw_curves,
    highlight_figure,
    highlight_page,
    report_page,
    scatter,
)
from lightning_attn.visualization.silent_failures import Thresholds
from lightning_attn.visualization.silent_failures_page import page
from tests.helpers.experiments import made

#: ESC and CSI sequences, a title by OSC, 8-bit CSI, a turned name, an isolate, a backspace, half of a pair.
HOSTILE = "a\x1b[31mb\x1b]0;owned\x07c\x9b2Jd\u202egnp.exe\u2066e\x08f\ud800g"
SHOWN = r"a\x1b[31mb\x1b]0;owned\x07c\x9b2Jd\u202egnp.exe\u2066e\x08f\ud800g"
HALF_A_FORMULA = r"a$\frac{$b"
MOST = "tab\tline\nRTL \u200fשלם\u200e joined 👩‍👩‍👧 क्‍ष \\$"


def test_what_gives_orders_is_written_out_and_nothing_else() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible(MOST) == MOST
    assert in_page(f"<{HOSTILE}'\">") == f"&lt;{SHOWN}&#x27;&quot;&gt;"


def test_json_is_inert_whole_and_never_holds_nan() -> None:
    value = {"a": [HOSTILE, float("nan"), (1.5, -float("inf"))], HOSTILE: None, "b": True}
    text = to_json(value)
    assert visible(text) == text
    assert json.loads(text) == {"a": [HOSTILE, None, [1.5, None]], HOSTILE: None, "b": True}
    assert to_json({"é": 1.25}, indent=1) == '{\n "é": 1.25\n}'


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", [HOSTILE, HALF_A_FORMULA, "$x$", r"\$5", "_hidden"])
def test_figures_and_pages_show_every_name(name: str) -> None:
    import torch

    row = HighlightRow(name, [name, "b"], [1.0, 0.5])
    runs = [Run(name, {f"val/{name}": {0: 1.0}})]
    trainings = [Training(name, 1.0, 0.4)]
    record = made(PermutationRecord, names=(name, "b"))
    figures: list[Figure] = [
        highlight_figure([row]),
        bag_figure([BagRow(name, torch.zeros(1, 2, 2), torch.ones(1))]),
        draw_curves(runs, [f"val/{name}"]),
        scatter(trainings, Thresholds()),
        *record.figures().values(),
    ]
    for figure in figures:
        figure.canvas.draw()
    for html in (
        highlight_page(name, [HighlightSection(name, [row], name)]),
        report_page(runs, [f"val/{name}"]),
        page(trainings, Thresholds()),
    ):
        assert in_page(name) in html
        assert visible(html) == html
    if "$" in name:
        (text,) = (text for text in figures[1].axes[0].texts if "$" in text.get_text())
        assert text._preprocess_math(text.get_text()) == (name, False)  # type: ignore[attr-defined]
