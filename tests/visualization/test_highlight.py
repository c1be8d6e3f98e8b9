import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_attn.visualization.highlight import (
    HighlightRow,
    HighlightSection,
    highlight_figure,
    highlight_html,
    highlight_page,
)

HOSTILE = '<script>alert("x")</script>'


def opacities(markup: str) -> list[float]:
    return [float(number) for number in re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", markup)]


def test_opacity_is_proportional_to_the_score() -> None:
    low, high, none = opacities(highlight_html(["a", "b", "c"], [0.1, 0.4, 0.0]))
    assert low == pytest.approx(high / 4, abs=1e-3)
    assert high > 0.5
    assert none == 0


def test_signed_scores_have_two_hues_and_show_their_value() -> None:
    markup = highlight_html(["up", "down"], [0.5, -0.5])
    hues = re.findall(r"rgba\((\d+,\d+,\d+),", markup)
    assert len(set(hues)) == 2
    assert 'title="-0.5"' in markup


def test_left_out_tokens_do_not_set_the_scale() -> None:
    assert highlight_html([None, "a", None], [5.0, 0.2, None]) == highlight_html(["a"], [0.2])


def test_unknown_scores_show_the_token_without_colour() -> None:
    assert highlight_html(["a", "b"], [None, float("nan")]) == "<span>a</span> <span>b</span>"


def test_a_text_without_any_score_is_no_division_by_zero() -> None:
    assert opacities(highlight_html(["a", "b"], [0.0, 0.0])) == [0, 0]


def test_tokens_and_scores_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        highlight_html(["a", "b"], [0.1])


def test_everything_a_user_wrote_is_escaped() -> None:
    section = HighlightSection(HOSTILE, [HighlightRow(HOSTILE, [HOSTILE, '" onload="'], [1.0, 0.5])], note=HOSTILE)
    page = highlight_page(HOSTILE, [section])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 6  # <title>, <h1>, <h2>, note, label, token
    assert '" onload="' not in page


def test_the_page_needs_no_network_and_knows_the_dark_scheme() -> None:
    page = highlight_page("title", [HighlightSection("one", [HighlightRow("epoch 0", ["good"], [1.0])])])
    assert "http" not in page
    assert "src=" not in page
    assert "color-scheme: light dark" in page


def test_the_figure_draws_any_text_and_wraps_long_ones() -> None:
    short = HighlightRow("epoch 0", ["half a $formula", "\\", "<b>"], [0.1, -0.3, None])
    long = HighlightRow("epoch 1", ["word"] * 100 + ["x" * 500, None], [0.01] * 101 + [None])
    FigureCanvasAgg(highlight_figure([short])).draw()
    figure = highlight_figure([short, long])
    FigureCanvasAgg(figure).draw()
    assert figure.get_size_inches()[1] > 2 * highlight_figure([short]).get_size_inches()[1]
