"""The page of ``lightning silent-failures``: is the attention right where the predictions are?"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_attn.ops.text import in_page
from lightning_attn.visualization.curves import COLOURS
from lightning_attn.visualization.silent_failures import (
    KINDS,
    Thresholds,
    Training,
    failure_rate,
    groups,
)

if TYPE_CHECKING:  # drawing is the only part that needs matplotlib, and it takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADER = ("", "trainings", "predictions", "attention", "good", "silent", "P(silent | good)", *KINDS)
_MARKERS = "osD^vP*X"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; }
img { max-width: 40em; width: 100%; background: #fff; border-radius: .5em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3em .9em; text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; min-width: 9em; }
.wide { overflow-x: auto; }
@media (max-width: 40em) { th, td { padding: .3em .4em; } }
p { color: var(--faint); }
"""


def rows(trainings: Sequence[Training], limits: Thresholds) -> list[list[str]]:
    """The table below :data:`HEADER`, one row per group."""
    table = []
    for name, members in groups(trainings).items():
        rate = failure_rate(members, limits)
        share = f"{rate.share:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.good else "-"
        spans = [_span([one.prediction for one in members]), _span([one.attention for one in members])]
        counts = [str(rate.kinds[kind]) for kind in KINDS]
        table.append([name, str(rate.trainings), *spans, str(rate.good), str(rate.silent), share, *counts])
    return table


def draw_trainings(axes: Axes, trainings: Sequence[Training], limits: Thresholds) -> None:
    """Every training by how good its predictions and its attention are; the corner of silent failures is shaded.

    Args:
        axes: Panel.
        trainings: Of any groups.
        limits: What counts as a silent failure.
    """
    from matplotlib.patches import Rectangle

    least = min([0.5, *(one.prediction for one in trainings), *(one.attention for one in trainings)]) - 0.02
    corner = (limits.good, least), 1.02 - limits.good, limits.bad - least
    axes.add_patch(Rectangle(*corner, color="#d55e00", alpha=0.12, lw=0, label="silent failure"))
    for number, (name, members) in enumerate(groups(trainings).items()):
        axes.plot(
            [one.prediction for one in members],
            [one.attention for one in members],
            _MARKERS[number % len(_MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            ms=5,
            alpha=0.65,
            label=f"{name} (n = {len(members):,})",
        )
    axes.axhline(0.5, color="#555555", ls=":", lw=1)
    axes.set(xlim=(least, 1.02), ylim=(least, 1.02))
    axes.set(xlabel="metric of the predictions", ylabel="AUROC of the attention for the keys")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def scatter(trainings: Sequence[Training], limits: Thresholds) -> Figure:
    """A figure of :func:`draw_trainings` alone, with its legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 5.2), layout="constrained")
    axes = figure.subplots()
    draw_trainings(axes, trainings, limits)
    axes.set_title("Is the attention right where the predictions are?", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def page(trainings: Sequence[Training], limits: Thresholds) -> str:
    """A page that needs no network: the table, the scatter, and every training.

    Args:
        trainings: At least one.
        limits: What counts as a silent failure.

    Returns:
        A complete HTML document; names are escaped.
    """
    picture = io.BytesIO()
    scatter(trainings, limits).savefig(picture, format="png", dpi=160)
    encoded = base64.b64encode(picture.getvalue()).decode()
    each = [
        [
            one.name,
            one.group,
            f"{one.prediction:.3f}",
            f"{one.attention:.3f}",
            *("" if value is None else f"{value:.3f}" for value in (one.key_mass, one.key_rate, one.effective)),
            (one.kind(limits) or "") + (", silent" if one.silent(limits) else ""),
        ]
        for one in sorted(trainings, key=lambda one: (not one.silent(limits), one.attention))
    ]
    columns = ("", "group", "predictions", "attention", "key mass", "key rate", "effective instances", "attention is")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Silent failures of attention</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<h1>Silent failures of attention</h1>
<p>Predictions are good from {limits.good:g} on; attention is wrong below an AUROC of {limits.bad:g} for the key
instances: inverted below {limits.inverted:g}, collapsed with fewer than {limits.effective:g} effective instances or
less weight on the keys than uniform attention gives them, else partial. In brackets the smallest and the largest
figure; of the share, Wilson's 95 % interval, which is too narrow where ensembles share members.</p>
{_table(HEADER, rows(trainings, limits))}
<p><img alt="Predictions and attention of {len(trainings)} trainings" src="data:image/png;base64,{encoded}"></p>
<h2>Every training</h2>
{_table(columns, each)}
</body></html>
"""


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{in_page(cell)}</th>" for cell in header)
    lines = "\n".join(f"<tr>{''.join(f'<td>{in_page(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f'<div class="wide"><table><tr>{head}</tr>\n{lines}\n</table></div>'


def _span(values: Sequence[float]) -> str:
    return f"{math.fsum(values) / len(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
