"""``lightning report``: finished runs side by side, as a page and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_attn.cli.arguments import Arguments, output_path
from lightning_attn.errors import InputError
from lightning_attn.ops.files import save_figure, write_text
from lightning_attn.visualization.curves import draw_curves, read_run, shared_curves
from lightning_attn.visualization.report_page import report_page


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
        write_text(output, report_page(runs, metrics))
    else:
        save_figure(draw_curves(runs, metrics), output, dpi=160)
    print(f"Wrote {output}")
    return 0
