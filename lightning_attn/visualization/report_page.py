"""``lightning report``: finished runs side by side, as a page and as a picture."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from lightning_attn.cli.arguments import Arguments, output_path
from lightning_attn.errors import InputError
from lightning_attn.visualization.curves import Run, draw_curves, read_run, shared_curves

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 84em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; }
img { max-width: 100%; background: #fff; border-radius: .5em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3em .9em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
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
    header = "".join(f"<th>{html.escape(run.name)}</th>" for run in runs)
    every = sorted({metric for run in runs for metric in run.curves})
    rows = "\n".join(
        f"<tr><td>{html.escape(metric)}</td>{''.join(f'<td>{_last(run, metric)}</td>' for run in runs)}</tr>"
        for metric in every
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Runs side by side</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<h1>Runs side by side</h1>
<img alt="Curves of {len(runs)} runs" src="data:image/png;base64,{encoded}">
<h2>Last epoch</h2>
<table><tr><th></th>{header}</tr>
{rows}
</table>
<p>Dotted: attention is random and the scorer has not started to learn; what is measured then is its start.</p>
</body></html>
"""


def _last(run: Run, metric: str) -> str:
    points = run.curves.get(metric)
    return f"{points[max(points)]:.4f}" if points else ""


def report_command(options: Sequence[str]) -> int:
    """Run ``lightning report``.

    Args:
        options: What stands after the command.

    Returns:
        Exit status.

    Raises:
        InputError: The user's input was wrong.
    """
    parser = Arguments(
        "report",
        "Put finished runs side by side: curves, and the figures of the last epoch.",
        "lightning-attn report runs/A runs/B --names plain mitigated --output report.html",
    )
    parser.add_argument("runs", nargs="+", help="folders that fit made")
    parser.add_argument("--names", nargs="+", help="what to call the runs (default: the names of their folders)")
    parser.add_argument("--metrics", nargs="+", help="what to draw, as it was logged (default: the usual ones)")
    parser.add_argument(
        "-o",
        "--output",
        help="a page (.html) or a picture (.png, .svg); replaced if it is there (default: report.html)",
    )
    arguments = parser.parse(options)
    if arguments is None:
        return 0
    if arguments.names and len(arguments.names) != len(arguments.runs):
        raise InputError(f"report: {len(arguments.runs)} runs need as many --names, not {len(arguments.names)}.")
    if arguments.output is None and Path("report.html").exists():
        raise InputError("report: there is a report.html already; name the file to write with --output.")
    output = output_path("--output", arguments.output or "report.html")
    if output.suffix not in (".html", ".png", ".svg"):
        raise InputError(f"report: --output must end in .html, .png or .svg, not {output.name!r}.")
    names = arguments.names or [None] * len(arguments.runs)
    runs = [read_run(folder, name) for folder, name in zip(arguments.runs, names, strict=True)]
    metrics = shared_curves(runs, arguments.metrics)
    if output.suffix == ".html":
        output.write_text(report_page(runs, metrics), encoding="utf-8")
    else:
        draw_curves(runs, metrics).savefig(output, dpi=160)
    print(f"Wrote {output}")
    return 0
