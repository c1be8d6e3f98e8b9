"""The page of ``lightning report``: finished runs side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from lightning_attn.ops.text import in_page
from lightning_attn.visualization.curves import Run, draw_curves

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 84em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; }
img { max-width: 100%; background: #fff; border-radius: .5em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3em .9em; text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; min-width: 9em; }
.wide { overflow-x: auto; }
@media (max-width: 40em) { th, td { padding: .3em .4em; } }
p { color: var(--faint); font-size: .9em; }
"""


def report_page(runs: Sequence[Run], metrics: Sequence[str]) -> str:
    """A page that needs no network: curves, and the last epoch's figures in a table.

    Args:
        runs: At least one.
        metrics: Names as they were logged.

    Returns:
        A complete HTML document; names of runs and metrics are escaped.
    """
    picture = io.BytesIO()
    draw_curves(runs, metrics).savefig(picture, format="png", dpi=160)
    encoded = base64.b64encode(picture.getvalue()).decode()
    header = "".join(f"<th>{in_page(run.name)}</th>" for run in runs)
    every = sorted({metric for run in runs for metric in run.curves})
    rows = "\n".join(
        f"<tr><td>{in_page(metric)}</td>{''.join(f'<td>{_last(run, metric)}</td>' for run in runs)}</tr>"
        for metric in every
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Runs side by side</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<h1>Runs side by side</h1>
<img alt="Curves of {len(runs)} runs" src="data:image/png;base64,{encoded}">
<h2>Last epoch</h2>
<div class="wide"><table><tr><th></th>{header}</tr>
{rows}
</table></div>
<p>Dotted: attention is random and the scorer has not started to learn; what is measured then is its start.</p>
</body></html>
"""


def _last(run: Run, metric: str) -> str:
    points = run.curves.get(metric)
    return f"{points[max(points)]:.4f}" if points else ""
