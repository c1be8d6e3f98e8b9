"""Text of users on its way to a terminal, a page, a figure or a JSON file, where none of it may give orders."""

from __future__ import annotations

import html
import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # drawing is the only part that needs matplotlib, and it takes a second to import
    from matplotlib.figure import Figure

#: Control characters but tab and line feed, what turns the direction of writing, and halves of surrogate pairs.
_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text with its control characters and overrides of direction written out: ``\x1b``, ``\u202e``."""
    return _ORDERS.sub(lambda order: order[0].encode("unicode_escape").decode(), text)


def in_page(text: str) -> str:
    """The text as a piece of HTML, in an element or in an attribute."""
    return html.escape(visible(text))


def inert(figure: Figure) -> Figure:
    """The figure, every text in it letter by letter; matplotlib would read ``$...$`` as mathematics, or fail on it.

    Labels of ticks are made anew at drawing: what is written there must be :func:`visible` before.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_text(visible(text.get_text()))
    return figure


def to_json(value: Any, indent: int | None = None) -> str:
    r"""JSON for every reader: numbers that are not finite are null, what :func:`visible` writes out is ``\uXXXX``.

    Args:
        value: Plain values; reading the JSON gives the same text again.
        indent: As in :func:`json.dumps`.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return _ORDERS.sub(lambda order: f"\\u{ord(order[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value
