"""What makes an attention head important, its control, and the picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from lightning_attn.attribution.heads import (
    HeadStatistics,
    Positional,
    Syntactic,
    important_heads,
    random_heads,
    reasons,
)
from lightning_attn.errors import InputError
from lightning_attn.visualization.heads_figure import heads_figure


def statistics(**changes: object) -> HeadStatistics:
    """Two layers of two, two relations; obj has no dependency."""
    fields = {
        "relations": ("amod", "obj"),
        "arcs": torch.tensor([100, 0]),
        # amod: baseline .5 to the head and .7 back
        "hits": torch.tensor([[[[61, 60], [0, 95]], [[0, 0], [0, 0]]], [[[0, 0], [81, 70]], [[0, 0], [0, 0]]]]),
        "baseline": torch.tensor([[0.5, torch.nan], [0.7, torch.nan]], dtype=torch.float64),
        "baseline_offset": torch.tensor([[1, 0], [-1, 0]]),
        "offset": torch.tensor([[-1, 0], [7, -1]]),
        "offset_share": torch.tensor([[0.81, 0.9], [0.8, 0.3]], dtype=torch.float64),
        "sentences": 9,
        "tokens": 90,
    }
    return HeadStatistics(**{**fields, **changes})  # type: ignore[arg-type]


def test_syntactic_heads_exceed_their_baseline_by_more_than_the_margin() -> None:
    assert important_heads(statistics(), [Syntactic(0.1)]) == [[0], [1]]  # 60 of 100 is not more
    assert important_heads(statistics(), [Syntactic(0.09)]) == [[0, 1], [1]]
    assert important_heads(statistics(), [Syntactic(0.1, "to_dependent")]) == [[], [0]]
    assert important_heads(statistics(), [Syntactic(0.1, "either")]) == [[0], [0, 1]]
    strengths = Syntactic(0.1).strength(statistics())
    torch.testing.assert_close(strengths, torch.tensor([[0.11, 0.1], [-0.5, 0.45]], dtype=torch.float64))


def test_positional_heads_exceed_the_share_at_any_offset() -> None:
    assert important_heads(statistics(), [Positional(0.8)]) == [[0, 1], []]
    marks = Positional(0.2).marks(statistics())
    assert list(marks) == ["0", "-1", "+7"]
    assert marks["-1"].tolist() == [[True, False], [False, True]]


def test_criteria_are_united_and_their_reasons_told() -> None:
    criteria = [Syntactic(0.1, "either"), Positional(0.8)]
    assert important_heads(statistics(), criteria) == [[0, 1], [0, 1]]
    assert reasons(statistics(), criteria) == {
        (0, 0): ["syntactic amod", "positional -1"],
        (0, 1): ["positional 0"],
        (1, 0): ["syntactic < amod"],
        (1, 1): ["syntactic amod"],
    }


def test_none_at_all_is_an_error_that_says_how_near_one_is() -> None:
    expected = r"number 1 of layer 1, reaches 0.45 .* more than 0.5 is needed and .* number 1 of layer 0, reaches 0.90 "
    with pytest.raises(InputError, match=expected):
        important_heads(statistics(), [Syntactic(0.5), Positional(0.95)])
    # a relation without a dependency makes nothing important
    nothing = statistics(arcs=torch.zeros(2, dtype=torch.int64), baseline=torch.full((2, 2), torch.nan))
    with pytest.raises(InputError, match=re.escape("reaches -1.00")):
        important_heads(nothing, [Syntactic(0.0)])


@pytest.mark.parametrize("make", [lambda: Syntactic(1.0), lambda: Syntactic(-0.1), lambda: Positional(0.0)])
def test_thresholds_outside_their_range_are_refused(make: object) -> None:
    with pytest.raises(InputError, match="must be in"):
        make()  # type: ignore[operator]


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(InputError, match="no direction 'up'; known: to_head, to_dependent, either"):
        Syntactic(direction="up")


@given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=6), st.integers(0, 2**31))
def test_the_control_has_as_many_in_each_layer(heads: list[set[int]], seed: int) -> None:
    drawn = random_heads([[*layer, *layer] for layer in heads], 8, seed)  # named twice, they count once
    assert [len(layer) for layer in drawn] == [len(layer) for layer in heads]
    assert all(len(set(layer)) == len(layer) and set(layer) <= set(range(8)) for layer in drawn)
    assert drawn == random_heads([sorted(layer) for layer in heads], 8, seed)


def test_the_control_draws_from_all_and_differs_between_seeds() -> None:
    drawn = [random_heads([[0, 1]], 4, seed)[0] for seed in range(60)]
    assert {head for pair in drawn for head in pair} == {0, 1, 2, 3}
    counts = [sum(head in pair for pair in drawn) for head in range(4)]
    assert max(counts) < 2 * min(counts)


def test_the_map_frames_the_important_ones(tmp_path: Path) -> None:
    criteria = [Syntactic(0.1, "either"), Positional(0.8)]
    figure = heads_figure(statistics(), criteria, "4 of 4 $heads")
    FigureCanvasAgg(figure).draw()
    panels = figure.axes[:2]
    assert [panel.get_title() for panel in panels] == ["syntactic: 3 of 4", "positional: 2 of 4"]
    expected = {(0, 0): "amod", (0, 1): "< amod", (1, 1): "amod"}, {(0, 0): "-1", (1, 0): "0"}
    for panel, texts in zip(panels, expected, strict=True):
        assert {tuple(text.get_position()): text.get_text() for text in panel.texts} == texts
        frames = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
        assert {(round(frame.get_x() + 0.46), round(frame.get_y() + 0.46)) for frame in frames} == set(texts)
    for suffix in (".png", ".svg"):
        figure.savefig(tmp_path / f"map{suffix}")
        assert (tmp_path / f"map{suffix}").stat().st_size > 1000
