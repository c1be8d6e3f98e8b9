"""Selections that explain a black box: ``python -m benchmarks.selection --data DIR`` writes ``results/selection.md``.

Every cell trains selector and reader under one arm and one seed, one to three minutes on one thread, and measures them
on validation and test data; finished cells are kept in ``results/selection.jsonl``, so a killed run goes on. Delete a
line to compute it again. ``--quick`` runs all arms on a few digits and writes elsewhere.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from benchmarks.cells import finished, run_cells
from benchmarks.selection.arms import ARMS
from benchmarks.selection.baselines import BASELINES
from benchmarks.selection.data import SETTINGS, black_box_of
from benchmarks.selection.measure import compute
from benchmarks.selection.page import write
from benchmarks.selection.plan import FULL, QUICK

RESULTS = Path(__file__).parents[2] / "results"


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("LIGHTNING_ATTN_DATA")
    parser.add_argument(
        "--data", default=root, help="folder with mnist/, sst/, sst_wiki/, geco/, imdb/, eraser_movies/"
    )
    parser.add_argument("--sets", help="comma-separated data sets; None takes all")
    parser.add_argument("--arms", help="semicolon-separated arms; None takes all")
    parser.add_argument("--seeds", type=int, help="only the first so many of each arm")
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, a thread each (default: %(default)s)")
    parser.add_argument("--work", default="runs/selection", help="where black boxes and drawn texts are kept")
    parser.add_argument("--quick", action="store_true", help="a few digits, minutes; writes into WORK/quick")
    parser.add_argument("--page", action="store_true", help="write the page of what is finished, and compute nothing")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else FULL
    if not chosen.quick and not chosen.page and chosen.data is None:
        parser.error("--data is needed, or LIGHTNING_ATTN_DATA in the environment.")
    sets = plan.data if chosen.sets is None else [name.strip() for name in chosen.sets.split(",")]
    arms = None if chosen.arms is None else [name.strip() for name in chosen.arms.split(";")]
    if unknown := [name for name in sets if name not in SETTINGS]:
        parser.error(f"There are no data {unknown[0]!r}; there are {', '.join(SETTINGS)}.")
    if unknown := [name for name in arms or [] if name not in (*ARMS, *BASELINES)]:
        parser.error(f"There is no arm {unknown[0]!r}; the arms are {'; '.join((*BASELINES, *ARMS))}.")
    output = Path(chosen.work) / "quick" if chosen.quick else RESULTS
    path = output / "selection.jsonl"
    if not chosen.page:
        cells = [
            cell
            for cell in plan.cells()
            if cell["data"] in sets
            and (arms is None or cell["arm"] in arms)
            and (chosen.seeds is None or cell["seed"] < chosen.seeds)
        ]
        for name in dict.fromkeys(cell["data"] for cell in cells):
            black_box_of(name, chosen.data or "", chosen.work)  # before workers would each train it
        run_cells(cells, partial(compute, root=chosen.data or "", work=chosen.work), path, chosen.workers)
    command = "python -m benchmarks.selection" + (" --quick" if chosen.quick else "")
    write(plan, finished(path), output, command)


if __name__ == "__main__":
    main()
