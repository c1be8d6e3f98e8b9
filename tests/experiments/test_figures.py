"""What stands in the figures; how they look is for people."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_attn.experiments import AgreementRecord, CounterfactualRecord, ExperimentRecord, PermutationRecord
from lightning_attn.experiments.figures import MOST_CLASSES, against_largest_weight, groups
from tests.helpers.experiments import KINDS, made


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def written(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "classes"), [(1, 2), (9, 2), (60, 6), (200, 9)])
def test_a_figure_says_what_it_shows(kind: type[ExperimentRecord], count: int, classes: int) -> None:
    record = made(kind, count, classes)
    (name, figure), *others = record.figures().items()
    assert not others
    assert name == kind.name
    found = texts(figure)
    assert any(kind.title in text and "test" in text and f"{count} example" in text for text in found)
    assert all(axes.get_title() and axes.get_ylabel() for axes in figure.axes)
    assert "predicted class" in found
    for group in groups(record):
        assert f"{group.name} (n = {int(group.rows.sum())})" in found
    assert written(figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_record_gives_the_same_picture(kind: type[ExperimentRecord]) -> None:
    one, other = (written(made(kind).figures()[kind.name], "png") for _ in range(2))
    assert one == other


def test_hostile_names_are_text_and_nothing_else() -> None:
    names = ("<script>alert(1)</script>", "half a $formula --> & more")
    figure = made(AgreementRecord, names=names).figures()["agreement"]
    assert any("half a $formula" in text for text in texts(figure))
    image = written(figure, "svg")
    assert b"<script" not in image
    ElementTree.fromstring(image)


def test_many_classes_are_pooled() -> None:
    record = made(PermutationRecord, 400, 20)
    counts = np.bincount(record.prediction, minlength=20)
    found = groups(record)
    assert len(found) == MOST_CLASSES
    frequent = sorted(sorted(range(20), key=lambda number: (-counts[number], number))[: MOST_CLASSES - 1])
    assert [group.name for group in found] == [*(f"class {number}" for number in frequent), "15 other classes"]
    assert sum(group.rows.sum() for group in found) == 400
    assert len({group.colour for group in found}) == MOST_CLASSES


def test_a_class_has_the_same_colour_in_every_panel_and_none_is_shared() -> None:
    record = made(PermutationRecord, 90, MOST_CLASSES)
    assert [group.name for group in groups(record)] == [f"class {number}" for number in range(MOST_CLASSES)]
    assert len({group.colour for group in groups(record)}) == MOST_CLASSES


def panel(record: ExperimentRecord) -> Axes:
    axes = Figure().subplots()
    against_largest_weight(axes, record, "tvd", "change", 1.0)
    return axes


def test_the_places_of_the_largest_weight_are_the_published_ones() -> None:
    record = made(PermutationRecord, 8, 1)
    record.values["largest_weight"] = np.array([0.0, 0.2, 0.25, 0.49, 0.5, 0.75, 1.0, np.nan])
    record.values["tvd"] = np.array([0.1, np.nan, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    axes = panel(record)
    labels = [label.get_text().replace("\n", ", ") for label in axes.get_xticklabels()]
    assert labels == ["0 to 0.25, n = 1", "0.25 to 0.5, n = 2", "0.5 to 0.75, n = 1", "0.75 to 1, n = 2"]
    heights = [sorted(line.get_ydata()) for line in axes.lines]
    assert heights == [[0.1], [0.2, 0.3], [0.4], [0.5, 0.6]]


def test_the_median_is_where_it_belongs() -> None:
    record = made(PermutationRecord, 41, 1)
    record.values["largest_weight"] = np.full(41, 0.6)
    axes = panel(record)
    (dot,) = axes.lines
    assert dot.get_xdata().tolist() == [2]
    assert dot.get_ydata()[0] == np.median(record.values["tvd"])


def test_bars_are_as_high_as_the_accuracies() -> None:
    record = made(CounterfactualRecord)
    axes = record.figures()["counterfactual"].axes[0]
    found = record.summary()
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["learned", "uniform", "random", "other"]
    expected = [found["accuracy"], *(found[f"{name}/accuracy"] for name in names[1:])]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(expected)


def test_shares_of_a_class_add_up() -> None:
    record = made(AgreementRecord, 200)
    axes = record.figures()["agreement"].axes[0]
    for patch in axes.patches:
        assert patch.get_data().values.sum() == pytest.approx(100)


def test_settings_of_matplotlib_are_left_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    for kind in KINDS:
        made(kind).figures()
    assert dict(matplotlib.rcParams) == before
