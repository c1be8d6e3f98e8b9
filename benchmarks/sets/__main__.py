"""Attention over sets: ``python -m benchmarks.sets`` writes ``results/sets.md`` and its figures.

Part 1: every task on three modalities, thirty trainings each: does attention find the key instances, where do good
predictions hide that it does not, and what do ensembles mend? Part 2: a search for settings in which attention fails
silently, and what it found on fresh bags. Part 3: the mitigations, where attention fails. Finished cells are kept in
``results/sets.jsonl``; delete a line to compute it again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.cells import finished, key, run_cells
from benchmarks.sets.figures import draw_ensembles, draw_scatter
from benchmarks.sets.page import report
from benchmarks.sets.plan import STRICT, Results, ensemble_figures, first_cells, later_cells, trainings_of
from benchmarks.sets.training import compute
from lightning_attn.visualization.silent_failures import Training

RESULTS = Path(__file__).parents[2] / "results"


def draw(results: Results) -> None:
    """The figures beside the page."""
    tasks = [cell for cell in first_cells() if cell["part"] == "tasks"]
    panels: dict[str, list[Training]] = {}
    for cell in tasks:
        panels.setdefault(cell["task"], []).extend(trainings_of(results[key(cell)], (1, 5)))
    for cell in later_cells(results):
        if cell["part"] == "confirmed":
            named = ", ".join([cell["task"], *(f"{name} {value:g}" for name, value in cell["setting"].items())])
            panels.setdefault(named, []).extend(trainings_of(results[key(cell)], (1, 5)))
    draw_scatter(panels, STRICT).savefig(RESULTS / "sets_scatter.png", dpi=110)
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for cell in tasks:
        panel = f"{cell['modality']}, {cell['head']} head"
        curves.setdefault(panel, {})[cell["task"]] = ensemble_figures(results[key(cell)])
    draw_ensembles(curves).savefig(RESULTS / "sets_ensembles.png", dpi=110)


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write page and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="cells at a time (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    path = RESULTS / "sets.jsonl"
    run_cells(first_cells(), compute, path, chosen.workers)
    run_cells(later_cells(finished(path)), compute, path, chosen.workers)
    results: Results = finished(path)
    (RESULTS / "sets.md").write_text(report(results, "python -m benchmarks.sets", RESULTS / "sets_discussion.md"))
    draw(results)


if __name__ == "__main__":
    main()
