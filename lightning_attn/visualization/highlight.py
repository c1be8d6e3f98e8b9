"""Texts with a score on every token, as HTML spans, as a page, and as a figure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightning_attn.ops.text import in_page, inert, visible

if TYPE_CHECKING:  # drawing is the only part that needs matplotlib, and it takes a second to import
    from matplotlib.figure import Figure

Score = float | None

#: Red, green, blue of positive and of negative scores: orange and blue, told apart by colour-blind readers too.
POSITIVE, NEGATIVE = (230, 120, 20), (40, 120, 220)
#: Opacity of the largest score; more would make white text on it hard to read.
_DEEPEST = 0.75
#: Characters in a line of the figure, and in its column of labels.
_LINE, _MARGIN = 100, 26
#: Size of the figure's letters, and inches of a character (DejaVu Sans Mono, which comes with matplotlib) and a line.
_POINTS = 9
_INCHES = (0.602 * _POINTS / 72, 0.22)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.05em; margin: 2em 0 .3em; }
p.note, td.label { color: var(--faint); font-size: .85em; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid var(--line); padding: .35em .6em; vertical-align: top; overflow-wrap: anywhere; }
td.label { white-space: pre-line; width: min(14em, 30%); }
span[title] { border-radius: .2em; padding: .05em .1em; }
"""


@dataclass
class HighlightRow:
    """One text under one set of scores.

    Attributes:
        label: What the scores are, such as ``epoch 3``.
        tokens: A token of None (padding, a special token) is left out.
        scores: One per token; None, NaN or infinity shows the token without colour.
    """

    label: str
    tokens: Sequence[str | None]
    scores: Sequence[Score]


@dataclass
class HighlightSection:
    """Rows that belong together, such as one text over the epochs.

    Attributes:
        heading: Plain text.
        rows: Shown one below the other.
        note: Plain text below the heading.
    """

    heading: str
    rows: list[HighlightRow] = field(default_factory=list)
    note: str = ""


def highlight_html(tokens: Sequence[str | None], scores: Sequence[Score], breaks: Collection[int] = ()) -> str:
    """Tokens as HTML spans, the deeper the colour the larger the score; negative scores have the other hue.

    Args:
        tokens: Any text, escaped here; None is left out.
        scores: One per token, of any range, coloured in proportion to the largest absolute score shown; the value is
            in the ``title``. None, NaN or infinity leaves the token without colour.
        breaks: Positions, among the tokens that are shown, before which a new line begins.

    Returns:
        HTML without any other markup: it may stand inside a page, a table cell or a notebook.

    Raises:
        ValueError: The numbers of tokens and of scores differ.
    """
    spans = [_span(token, score, strength) for token, score, strength in _shown(tokens, scores)]
    return " ".join(f"<br>{span}" if place in breaks else span for place, span in enumerate(spans))


def highlight_page(title: str, sections: Sequence[HighlightSection]) -> str:
    """A small page that needs no network and follows the reader's light or dark scheme.

    Args:
        title: Plain text.
        sections: In the order in which they are shown.

    Returns:
        A complete HTML document.
    """
    name = in_page(title)
    body = "\n".join(_section(section) for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n<h1>{name}</h1>\n{body}\n</body>\n</html>\n"
    )


def highlight_figure(rows: Sequence[HighlightRow]) -> Figure:
    """The rows drawn one below the other, long texts in several lines; independent of pyplot's state.

    Args:
        rows: At least one; the label stands to the left of its text.

    Returns:
        A figure as high as its rows need.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    width, height = _INCHES
    laid_out = [_lines(row) for row in rows]
    total = sum(len(lines) for lines in laid_out) + 0.5 * len(rows)
    figure = Figure(figsize=((_MARGIN + _LINE + 2) * width, (total + 1) * height), dpi=120)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, _MARGIN + _LINE + 2), ylim=(total + 0.5, -0.5))
    axes.set_axis_off()
    style: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": _POINTS, "va": "center"}
    top = 0.0
    for row, lines in zip(rows, laid_out, strict=True):
        axes.text(1, top + 0.5, _cut(row.label.replace("\n", " "), _MARGIN - 2), color="0.4", **style)
        for line in lines:
            for start, token, colour in line:
                if colour is not None:
                    place = (_MARGIN + start, top + 0.05)
                    axes.add_patch(Rectangle(place, len(token), 0.9, facecolor=colour, linewidth=0))
                axes.text(_MARGIN + start, top + 0.5, token, **style)
            top += 1
        top += 0.5
    return inert(figure)


def _shown(tokens: Sequence[str | None], scores: Sequence[Score]) -> list[tuple[str, Score, float]]:
    """Token, score, and score over the largest absolute score, of the tokens that are shown."""
    pairs = [(token, score) for token, score in zip(tokens, scores, strict=True) if token is not None]
    finite = [(token, None if score is None or not math.isfinite(score) else float(score)) for token, score in pairs]
    largest = max((abs(score) for _, score in finite if score is not None), default=0.0)
    return [(token, score, score / largest if score and largest else 0.0) for token, score in finite]


def _span(token: str, score: Score, strength: float) -> str:
    text = in_page(token)
    if score is None:
        return f"<span>{text}</span>"
    red, green, blue = POSITIVE if strength >= 0 else NEGATIVE
    opacity = _DEEPEST * abs(strength)
    return f'<span title="{score:.4g}" style="background:rgba({red},{green},{blue},{opacity:.3f})">{text}</span>'


def _section(section: HighlightSection) -> str:
    note = f'<p class="note">{in_page(section.note)}</p>' if section.note else ""
    rows = "\n".join(
        f'<tr><td class="label">{in_page(row.label)}</td><td>{highlight_html(row.tokens, row.scores)}</td></tr>'
        for row in section.rows
    )
    return f"<h2>{in_page(section.heading)}</h2>{note}\n<table>\n{rows}\n</table>"


def _lines(row: HighlightRow) -> list[list[tuple[int, str, tuple[float, float, float, float] | None]]]:
    """Lines of (column, token, colour); never none, so that a row takes room."""
    lines: list[list[tuple[int, str, tuple[float, float, float, float] | None]]] = [[]]
    column = 0
    for token, score, strength in _shown(row.tokens, row.scores):
        text = _cut(visible(token), _LINE)
        if column and column + len(text) > _LINE:
            lines.append([])
            column = 0
        red, green, blue = POSITIVE if strength >= 0 else NEGATIVE
        colour = None if not score else (red / 255, green / 255, blue / 255, _DEEPEST * abs(strength))
        lines[-1].append((column, text, colour))
        column += len(text) + 1
    return lines


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
