"""The shortcut laboratory: ``python -m benchmarks.shortcut --data DIR`` writes ``results/shortcut.md`` and its figures.

Part 0 tunes each arm's own parameter on validation texts; 1: what travels in the mask where values are content-free;
2: all arms on SST and SST+Wiki; 3: those that matter on further data and with the mask at other places; 4: ablations.
Finished cells are kept in ``results/shortcut.jsonl``, so a killed run goes on; delete a line to compute it again. The
page is written after every part, and says what is missing. ``--quick`` runs every part on synthetic reviews.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from matplotlib import pyplot as plt

from benchmarks.cells import Results, finished, run_cells
from benchmarks.difference_figure import draw_differences
from benchmarks.shortcut.arms import ARMS
from benchmarks.shortcut.figures import draw_bits
from benchmarks.shortcut.measure import compute
from benchmarks.shortcut.page import page, table_of
from benchmarks.shortcut.plan import FULL, QUICK, Plan

RESULTS = Path(__file__).parents[2] / "results"
PARTS = range(5)
SHOWN = ("accuracy", "leaked_bits", "auprc", "b/comprehensiveness_gain", "b/sufficiency_gain", "b/flip_fraction_gain")


def write(plan: Plan, results: Results, folder: Path, command: str) -> None:
    """Page and figures, of whatever is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    text = page(plan, results, command, folder / "shortcut_discussion.md")
    bits = table_of(plan, plan.content_free, "content-free", results)
    if bits.done:
        draw_bits(bits).savefig(folder / "shortcut_content_free.png", dpi=110)
    for data in plan.data_sets():
        table = table_of(plan, data, "local", results)
        if table.done:
            name = data.lower().replace("+", "_")
            draw_differences(table, SHOWN).savefig(folder / f"shortcut_{name}.png", dpi=110)
    plt.close("all")
    (folder / "shortcut.md").write_text(text)


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("LIGHTNING_ATTN_DATA")
    parser.add_argument("--data", default=root, help="folder with sst/, sst_wiki/, imdb/, eraser_movies/")
    parser.add_argument("--parts", default="0,1,2,3,4", help="comma-separated (default: %(default)s)")
    parser.add_argument("--arms", help="comma-separated; None takes all")
    parser.add_argument("--seeds", type=int, help="only the first so many of each table")
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, a thread each (default: %(default)s)")
    parser.add_argument("--work", default="runs/shortcut", help="where judges and drawn texts are kept")
    parser.add_argument("--quick", action="store_true", help="synthetic reviews, a few minutes, writes into --output")
    parser.add_argument("--output", type=Path, help="where results go; with --quick, WORK/quick")
    chosen = parser.parse_args(arguments)
    plan, output = FULL, chosen.output or RESULTS
    if chosen.quick:
        plan, output = QUICK, chosen.output or Path(chosen.work) / "quick"
        if output.resolve() == RESULTS.resolve():
            parser.error("--quick does not write into results/; give another --output.")
    elif chosen.data is None:
        parser.error("--data is needed, or LIGHTNING_ATTN_DATA in the environment.")
    parts = [int(number) for number in chosen.parts.split(",")]
    arms = None if chosen.arms is None else [name.strip() for name in chosen.arms.split(",")]
    if unknown := [str(number) for number in parts if number not in PARTS]:
        parser.error(f"There is no part {unknown[0]}; the parts are 0 to {PARTS[-1]}.")
    if unknown := [name for name in arms or [] if name not in ARMS]:
        parser.error(f"There is no arm {unknown[0]!r}; the arms are {', '.join(ARMS)}.")
    path, command = output / "shortcut.jsonl", "python -m benchmarks.shortcut" + (" --quick" if chosen.quick else "")
    function = partial(compute, root=chosen.data or "", work=chosen.work)
    for number in parts:
        cells = [
            cell
            for cell in plan.part(number, finished(path))
            if (arms is None or cell["arm"] in arms)
            and (number == 0 or chosen.seeds is None or cell["seed"] < chosen.seeds)
        ]
        run_cells(cells, function, path, chosen.workers)
        write(plan, finished(path), output, command)


if __name__ == "__main__":
    main()
