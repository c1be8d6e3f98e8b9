"""Does attention explain? ``python -m benchmarks.attention_is_not_explanation --data DIR --vectors FILE``.

Trains SST {BiLSTM, CNN, Average} x {additive, dot} under every mitigation, and natural language inference and bAbI 1
without; measures each network with the four experiments of Jain and Wallace 2019; and writes
``results/attention_is_not_explanation.md`` and its figure. FILE comes from ``python -m benchmarks.word_vectors``.
Networks are kept in the folder ``--checkpoints``, measurements in ``results/attention_is_not_explanation.jsonl``; what
is there is not computed again. ``--quick`` tries everything on one small model in three minutes, and writes beside the
checkpoints.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.attention_figure import draw
from benchmarks.attention_models import SEEDS, Places, load, make_data, read, train
from benchmarks.attention_page import ARMS, ATTENTIONS, ENCODERS, Measurements, page
from benchmarks.cells import Cell, finished, key, run_cells
from lightning_attn.experiments import (
    AttentionSource,
    Other,
    Random,
    Uniform,
    adversarial,
    agreement,
    counterfactual,
    permutation,
)
from lightning_attn.metrics.functional.kendall import significant

NAME = "attention_is_not_explanation"
RESULTS = Path(__file__).parents[1] / "results"
EPOCHS = {"sst": 6, "nli": 6, "babi": 45}
SAMPLE = {"texts": 2000, "adversarial": 500}  # of each test set at most, drawn once; accuracy is always of all


def cells() -> list[Cell]:
    """Every network that is measured, seed by seed so that what stands first is whole first."""
    found = [("sst", arm) for arm in ARMS] + [("nli", "none"), ("babi", "none")]
    return [
        {"task": task, "encoder": encoder, "attention": attention, "arm": arm, "seed": seed, "epochs": EPOCHS[task]}
        for task, arm in found
        for attention in ATTENTIONS
        for encoder in ENCODERS
        for seed in range(SEEDS)
    ]


def diagnoses() -> list[Cell]:
    """Average under uniform weights and under those of the BiLSTM (Wiegreffe and Pinter 2019), which learn nothing."""
    plain = {"task": "sst", "encoder": "average", "arm": "none", "epochs": EPOCHS["sst"]}
    return [plain | {"attention": name, "seed": seed} for name in ("uniform", "frozen") for seed in range(SEEDS)]


def quick() -> list[Cell]:
    """A few networks that train in seconds."""
    wanted = {"task": "sst", "encoder": "average", "attention": "additive"}
    some = [
        cell for cell in cells() if wanted.items() <= cell.items() and cell["arm"] in ("none", "instance_weighting")
    ]
    return [cell | {"epochs": 2} for cell in some]


def neighbour(cell: Cell) -> Cell:
    """The same with another seed: whose attention is put in place of the cell's own."""
    return cell | {"seed": (cell["seed"] + 1) % SEEDS}


def measure(cell: Cell, places: Places) -> dict[str, float]:
    """The four experiments on the test set."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    network = load(cell, places)
    sources: dict[str, AttentionSource] = {
        "uniform": Uniform(),
        "random": Random(cell["seed"]),
        "other": Other(load(neighbour(cell), places)),
    }
    data = make_data(cell, places)
    data.prepare_data()
    data.setup("test")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data.dataset("test"))))
    rows: dict[str, list[Tensor]] = defaultdict(list)
    for batch in data.test_dataloader():
        for name, source in sources.items():
            swapped = counterfactual(network, batch, source)
            rows[f"{name}_change"].append(swapped.change)
            rows[f"{name}_accuracy"].append(swapped.correct)
        rows["accuracy"].append(swapped.correct_learned)
        texts = batch.select(torch.isin(batch.index, order[: SAMPLE["texts"]]))
        if len(texts):
            found = agreement(network, texts)
            for name, value in vars(found).items():
                rows[name].append(significant(value) if name.endswith("_p") else value)
            shuffled = permutation(network, texts)
            rows["permutation"].append(shuffled.change)
            rows["largest"].append(shuffled.largest)
        few = batch.select(torch.isin(batch.index, order[: SAMPLE["adversarial"]]))
        if len(few):
            rows["jsd"].append(adversarial(network, few).jsd)
    return summary(rows) | read(cell, places)["figures"]


def summary(rows: dict[str, list[Tensor]]) -> dict[str, float]:
    """Mean and standard deviation over the examples where a figure is defined, and for how many it is not."""
    figures: dict[str, float] = {}
    for name, parts in rows.items():
        values = torch.cat(parts).double()
        known = values[~values.isnan()]
        figures[name] = known.mean().item()
        figures[f"{name}_sd"] = known.std().item()
        figures[f"{name}_undefined"] = float(len(values) - len(known))
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", required=True, type=Path, help="folder with sst, counterfactual_nli, snli, babi_en_1k"
    )
    parser.add_argument("--vectors", required=True, type=Path, help="file of benchmarks.word_vectors")
    parser.add_argument("--checkpoints", type=Path, default=Path("runs") / NAME, help="folder for trained networks")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time")
    parser.add_argument("--quick", action="store_true", help="one small model")
    parser.add_argument("--tasks", nargs="+", default=["sst", "nli", "babi"], help="compute the cells of these only")
    chosen = parser.parse_args(arguments)
    places = Places(chosen.data, chosen.vectors, chosen.checkpoints)
    folder = chosen.checkpoints / "quick" if chosen.quick else RESULTS
    kept = folder / f"{NAME}.jsonl"

    everything = quick() if chosen.quick else cells()
    wanted = [cell for cell in everything if cell["task"] in chosen.tasks]
    done = finished(kept)
    missing = [cell for cell in wanted if key(cell) not in done]
    needed = {places.checkpoint(cell): cell for one in missing for cell in (one, neighbour(one))}
    studied = [] if chosen.quick or "sst" not in chosen.tasks else diagnoses()
    for cell in studied:
        if key(cell) not in done:
            guide = cell | {"encoder": "bilstm", "attention": "additive"}
            needed[places.checkpoint(guide)] = guide
    trainings = [cell for path, cell in needed.items() if not path.exists()]
    run_cells(trainings, partial(train, places=places), chosen.checkpoints / "trainings.jsonl", chosen.workers)
    run_cells(wanted, partial(measure, places=places), kept, chosen.workers)
    run_cells(studied, partial(train, places=places), kept, chosen.workers)
    discussion = RESULTS / f"{NAME}_discussion.md"
    text = discussion.read_text() if discussion.exists() and not chosen.quick else ""
    found = Measurements(finished(kept), [*everything, *diagnoses()])
    (folder / f"{NAME}.md").write_text(page(found, SAMPLE) + text)
    if all(found.whole("sst", arm) for arm in ARMS):
        draw(found).savefig(folder / f"{NAME}.png", dpi=120)


if __name__ == "__main__":
    main()
