"""The map of a transformer's layers and attention heads on a page: `head_map`."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

#: Rules of the page that a map stands on; the colours are those of the page.
HEAD_MAP_STYLE = """
details .heads { border-collapse: separate; border-spacing: 2px; margin: .5em 0; font-size: .85em; }
details .heads td, details .heads th { min-width: 2.1em; height: 1.7em; padding: 0; overflow-wrap: normal;
  text-align: center; vertical-align: middle; }
details .heads th { font-weight: 400; color: var(--faint); padding: 0 .3em; }
details .heads td { border-radius: .25em; background: var(--line); }
details .heads td.important { background: var(--win); color: #fff; font-weight: 600; }
"""


def head_map(layers: Sequence[Sequence[int]], heads_per_layer: int, reasons: Mapping[str, Sequence[str]]) -> str:
    """A table of all attention heads in which the important ones stand out; pointing at one says why it is.

    Args:
        layers: Important attention heads of each layer, the lowest first; it is drawn below.
        heads_per_layer: How many there are.
        reasons: Why, by ``layer.head``, plain text; those without any are important because the file says so.

    Returns:
        HTML, escaped.
    """
    head = "".join(f'<th scope="col">{number}</th>' for number in range(heads_per_layer))
    rows = []
    for layer in reversed(range(len(layers))):
        cells = []
        for number in range(heads_per_layer):
            name = f"{layer}.{number}"
            if number in layers[layer]:
                why = ", ".join(reasons.get(name, [])) or "important"
                title = html.escape(f"{name}: {why}", quote=True)
                cells.append(f'<td class="important" title="{title}">{number}</td>')
            else:
                cells.append(f'<td title="{name}"></td>')
        rows.append(f'<tr><th scope="row">{layer}</th>{"".join(cells)}</tr>')
    count, total = sum(len(set(layer)) for layer in layers), len(layers) * heads_per_layer
    return (
        f'<details class="faint" open><summary>{count} of {total} attention heads are important; Mask-LRP follows '
        f'these alone</summary><table class="heads">{"".join(rows)}<tr><th scope="row">layer</th>{head}</tr></table>'
        "Layer 0 is the lowest. Point at an attention head to see why it is important.</details>"
    )
