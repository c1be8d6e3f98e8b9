"""Transformers: ``python -m benchmarks.transformers --data DIR --minilm FOLDER`` writes ``results/transformers.md``.

Part 0 fine-tunes MiniLM-L6 once on each task and chooses attention heads; 1: every explanation; 2: does masking to
important attention heads help, and more than to random ones? 3: self-attention with and without mitigations. Models
are kept in ``--work``, finished cells in ``results/transformers.jsonl``, so a killed run goes on; delete a line to
compute it again. The page is written after every lot of cells, and says what is missing. ``--quick`` runs every part on
a tiny model and made-up texts. A GPU is used where there is one.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from matplotlib import pyplot as plt

from benchmarks.cells import Results, finished, run_cells
from benchmarks.difference_figure import draw_differences
from benchmarks.transformers.measure import compute
from benchmarks.transformers.page import columns_of, page, table_of
from benchmarks.transformers.plan import FULL, QUICK, Plan, masked
from benchmarks.transformers.tiny import write_tiny

RESULTS = Path(__file__).parents[2] / "results"
PARTS = range(4)


def write(plan: Plan, results: Results, folder: Path, command: str) -> None:
    """Page and figures, of whatever is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in plan.tasks:
        table = table_of(plan, 1, task, results)
        if table.rows[masked("released")]:
            figure = draw_differences(table, columns_of(task), masked("released"))
            figure.savefig(folder / f"transformers_{task.lower()}.png", dpi=110)
    plt.close("all")
    text = page(plan, results, command, folder / "transformers_discussion.md")
    (folder / "transformers.md").write_text(text)


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("LIGHTNING_ATTN_DATA")
    parser.add_argument(
        "--data",
        default=root,
        help="folder with sst/, eraser_movies/, counterfactual_nli/, snli/, squad_xquad_en/, ud_english_ewt/",
    )
    parser.add_argument("--minilm", help="folder with config.json, model.safetensors and tokenizer.json; or a Hub name")
    parser.add_argument("--parts", default="0,1,2,3", help="comma-separated (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, a thread each (default: %(default)s)")
    parser.add_argument(
        "--work", default="runs/transformers", help="where models made of one --minilm are kept (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model and made-up texts, writes into --output")
    parser.add_argument("--output", type=Path, help="where results go; with --quick, WORK/quick")
    chosen = parser.parse_args(arguments)
    parts = [int(number) for number in chosen.parts.split(",")]
    if unknown := [str(number) for number in parts if number not in PARTS]:
        parser.error(f"There is no part {unknown[0]}; the parts are 0 to {PARTS[-1]}.")
    plan, output, command = FULL, chosen.output or RESULTS, "python -m benchmarks.transformers"
    if chosen.quick:
        plan, output = QUICK, chosen.output or Path(chosen.work) / "quick"
        if output.resolve() == RESULTS.resolve():
            parser.error("--quick does not write into results/; give another --output.")
        data, model = write_tiny(Path(chosen.work) / "tiny")
        command += " --quick"
    elif chosen.data is None or chosen.minilm is None:
        parser.error("--minilm is needed, and --data or LIGHTNING_ATTN_DATA in the environment.")
    else:
        data, model = Path(chosen.data), chosen.minilm
        command += " --data DIR --minilm FOLDER"
    path = output / "transformers.jsonl"
    function = partial(compute, root=str(data), model=str(model), work=chosen.work)
    for number in parts:
        for cells in plan.stages(number):
            run_cells(cells, function, path, chosen.workers)
            write(plan, finished(path), output, command)


if __name__ == "__main__":
    main()
