"""The summary of an experiment for a person at a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from pytorch_lightning import Trainer
from rich.console import Console
from rich.table import Table

from lightning_attn.experiments.figures import MOST_CLASSES
from lightning_attn.experiments.record import ExperimentRecord


def print_summary(trainer: Trainer, record: ExperimentRecord, path: Path) -> None:
    """Print a table of the summary, with a column for each predicted class if they are few.

    Args:
        trainer: Its progress bar is left whole.
        record: What was found.
        path: Where it was written, named below the table.
    """
    columns = {"all": record, **(record.by_class() if len(record.classes) <= MOST_CLASSES else {})}
    table = Table(title=f"{record.title} ({record.split})", title_justify="left", title_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row("examples", *(f"{len(part):,}" for part in columns.values()))
    summaries = [part.summary() for part in columns.values()]
    for name in summaries[0]:
        if name.endswith("undefined") and not summaries[0][name]:
            continue  # as a person expects
        words = record.words.get(name, name.replace("_", " ").replace("/", ": "))
        table.add_row(words, *(_shown(summary[name]) for summary in summaries))
    text = io.StringIO()
    console = Console(file=text, width=Console().width, force_terminal=sys.stdout.isatty(), markup=False)
    console.print(table)
    text.write(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
    bar = trainer.progress_bar_callback
    if bar is not None:
        bar.print(text.getvalue())  # above the bar, which a plain print would tear apart
    else:
        print(text.getvalue(), flush=True)


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
