"""Experiments as cells: each finished cell is one JSON line, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from scipy import stats

Cell = dict[str, Any]
#: Of finished cells, by :func:`key`.
Results = Mapping[str, Mapping[str, Any]]


def key(cell: Cell) -> str:
    """One string per cell, the same whatever the order of its entries."""
    return json.dumps(cell, sort_keys=True)


def finished(path: Path) -> dict[str, dict[str, float]]:
    """Results by cell key; a last line that a killed run left half-written is left out and computed again."""
    done: dict[str, dict[str, float]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            done[key(row["cell"])] = row["result"]
    return done


def append(path: Path, cell: Cell, result: Mapping[str, Any]) -> None:
    """Add the result of a cell, on a line of its own also where a killed run left the last one half-written."""
    with path.open("a+b") as file:
        file.seek(0, 2)
        if end := file.tell():
            file.seek(end - 1)
        broken = bool(end) and file.read(1) != b"\n"
        file.write(("\n" * broken + json.dumps({"cell": cell, "result": result}) + "\n").encode())


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)


def run_cells(cells: Sequence[Cell], function: Callable[[Cell], dict[str, float]], path: Path, workers: int) -> None:
    """Compute the cells that ``path`` does not hold yet, each in a process, and append each result as it comes.

    Args:
        cells: Plain dictionaries; equal dictionaries are one cell.
        function: A module-level function from a cell to figures.
        path: JSON-lines file.
        workers: Number of processes; each gets its share of the threads, which OMP_NUM_THREADS bounds.
    """
    done = finished(path)
    open_cells = [cell for cell in cells if key(cell) not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()) as progress,
        ProcessPoolExecutor(workers, context, _start_worker, (threads,)) as pool,
    ):
        bar = progress.add_task(path.stem, total=len(cells), completed=len(cells) - len(open_cells))
        jobs = {pool.submit(_timed, function, cell): cell for cell in open_cells}
        for job in as_completed(jobs):
            append(path, jobs[job], job.result())
            progress.advance(bar)


def _timed(function: Callable[[Cell], dict[str, float]], cell: Cell) -> dict[str, float]:
    start = time.perf_counter()
    result = function(cell)
    return result | {"seconds": time.perf_counter() - start}


def rounded(value: Any, digits: int = 5) -> Any:
    """Nested lists and dictionaries with their floats rounded: a file of many figures stays small enough to keep."""
    if isinstance(value, dict):
        return {name: rounded(one, digits) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one, digits) for one in value]
    return round(value, digits) if isinstance(value, float) else value


def mean_and_deviation(values: Iterable[float], digits: int = 3) -> str:
    """``mean ± standard deviation`` over seeds, without the leading zero; the one value there is if there is one."""
    array = np.array([value for value in values if value is not None], dtype=float)
    if not len(array):
        return "-"
    if len(array) == 1:
        return _short(array[0], digits)
    deviation = array.std(ddof=1)
    return f"{_short(array.mean(), digits)} ± {_short(deviation, digits)}"


def paired_difference(values: Sequence[float], reference: Sequence[float], digits: int = 3) -> str:
    """Mean difference over paired seeds with its 95 % Student interval; bold where the interval leaves out 0."""
    difference = np.array(values, dtype=float) - np.array(reference, dtype=float)
    error = difference.std(ddof=1) / len(difference) ** 0.5
    half = error * stats.t.ppf(0.975, len(difference) - 1)
    mean = difference.mean()
    text = f"{mean:+.{digits}f} [{mean - half:+.{digits}f}, {mean + half:+.{digits}f}]"
    return f"**{text}**" if abs(mean) > half else text


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, every row as long as the header."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{digits}f}"
