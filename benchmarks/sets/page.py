"""The page ``results/sets.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Cell, key, markdown_table, mean_and_deviation, paired_difference
from benchmarks.sets.plan import (
    HEADS,
    SEARCH_SEED,
    SILENT_SHARE,
    STRICT,
    Results,
    ensemble_figures,
    first_cells,
    later_cells,
    silent_share,
    trainings_of,
)
from benchmarks.sets.training import BATCH, DRAWS, EPOCHS, PRETRAINING_EPOCHS, RATE, SIZES
from lightning_attn.networks.combinations import COMBINATIONS
from lightning_attn.visualization.silent_failures import KINDS, failure_rate

COMPARED = {"bag AUROC": "bag", "attention AUROC": "attention", "key mass": "key_mass"}


def _span(values: list[float]) -> str:
    short = [f"{value:.3f}".replace("0.", ".", 1) if value < 0.9995 else "1.00" for value in values]
    mean = f"{np.mean(values):.3f}".replace("0.", ".", 1) if np.mean(values) < 0.9995 else "1.00"
    return f"{mean} [{min(short)}, {max(short, key=float)}]"


def _kinds(result: dict[str, Any]) -> str:
    single = trainings_of(result, (1,))
    counts = {kind: sum(one.kind(STRICT) == kind for one in single) for kind in KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "-"


def _rate(result: dict[str, Any]) -> str:
    rate = failure_rate(trainings_of(result, (1,)), STRICT)
    return f"{rate.silent}/{rate.good} [{rate.low:.2f}, {rate.high:.2f}]" if rate.good else "0/0"


def _where(cell: Cell) -> list[str]:
    setting = ", ".join(f"{name} {value:g}" for name, value in cell["setting"].items()) or "-"
    return [cell["task"], setting, cell["head"]]


def tasks_section(results: Results) -> list[str]:
    """Part 1."""
    text = []
    for head in HEADS:
        table = []
        for cell in first_cells():
            if cell["part"] != "tasks" or cell["head"] != head:
                continue
            result = results[key(cell)]
            ensembles = [f"{np.mean(drawn):.3f} ({min(drawn):.3f})" for drawn in ensemble_figures(result)[1:]]
            spans = [_span(result[name]) for name in ("bag", "attention")]
            means = [f"{np.mean(result[name]):.3f}" for name in ("worse_letter", "key_mass")]
            found = [f"{result['key_rate']:.3f}", _kinds(result), _rate(result)]
            table.append([cell["modality"], cell["task"], *spans, *ensembles, *means, *found])
        header = ["modality", "task", "bag AUROC", "attention AUROC", *(f"ensemble of {size}" for size in SIZES[1:])]
        header += ["worse letter", "key mass", "key rate", "wrong attention", "silent / good"]
        text += [f"### {'Linear' if head == 'linear' else 'MLP'} head", "", markdown_table(header, table)]
    return text


def combinations_section(results: Results) -> list[str]:
    """How the members are combined, where single attention is wrong in some trainings."""
    table = []
    for cell in first_cells():
        result = results[key(cell)]
        if cell["part"] != "tasks" or min(result["attention"]) >= STRICT.bad:
            continue
        each = [result["ensembles"][name]["5"] for name in COMBINATIONS]
        figures = [f"{np.mean(one['attention']):.3f} / {np.mean(one['bag']):.3f}" for one in each]
        single = f"{np.mean(result['attention']):.3f} / {np.mean(result['bag']):.3f}"
        table.append([cell["task"], cell["modality"], cell["head"], single, *figures])
    return [markdown_table(["task", "modality", "head", "single", *COMBINATIONS], table)]


def disagreement_section(results: Results) -> list[str]:
    """Does disagreement foretell wrong attention?"""
    table = []
    for cell in [cell for cell in first_cells() + later_cells(results) if cell["part"] in ("tasks", "confirmed")]:
        if cell["part"] == "tasks" and cell["modality"] != "digits":
            continue
        measured = results[key(cell)]["disagreement"]
        names = ("jsd", "rank_correlation", "random", "area", "oracle", "gain")
        seed = [f"{cell['data_seed']}"]
        table.append([*_where(cell), *seed, *(f"{measured[name]:.3f}" for name in names)])
    header = ["task", "setting", "head", "bags", "divergence", "rank correlation", "error (random order)"]
    return [markdown_table([*header, "area by disagreement", "area, best order", "gain"], table)]


def search_section(results: Results) -> list[str]:
    """Part 2."""
    table = []
    for cell in first_cells():
        if cell["part"] == "search":
            result = results[key(cell)]
            share = silent_share(result)
            shown = f"**{share:.2f}**" if share >= SILENT_SHARE else f"{share:.2f}"
            spans = [_span(result[name]) for name in ("val", "bag", "attention")]
            table.append([*_where(cell), *spans, f"{np.mean(result['key_mass']):.2f}", shown])
    header = ["task", "setting", "head", "bag AUROC, validation", "bag AUROC, test", "attention AUROC", "key mass"]
    text = [markdown_table([*header, "silent"], table)]
    fresh = []
    for cell in [cell for cell in later_cells(results) if cell["part"] == "confirmed"]:
        result = results[key(cell)]
        ensembles = [f"{np.mean(drawn):.3f}" for drawn in ensemble_figures(result)[1:]]
        spans = [_span(result[name]) for name in ("bag", "attention")]
        place = [*_where(cell), str(cell["data_seed"])]
        fresh.append([*place, *spans, f"{silent_share(result):.2f}", _rate(result), _kinds(result), *ensembles])
    header = ["task", "setting", "head", "bags", "bag AUROC", "attention AUROC", "silent", "silent / good"]
    header += ["wrong attention", *(f"ensemble of {size}" for size in SIZES[1:])]
    if fresh:
        text += ["What was found, on three fresh draws of bags, 30 trainings each:", "", markdown_table(header, fresh)]
    else:
        text += ["No setting was strictly silent, so nothing was confirmed."]
    return text


def mitigations_section(results: Results) -> list[str]:
    """Part 3."""
    table = []
    cells = [cell for cell in later_cells(results) if cell["part"] == "mitigations"]
    for cell in cells:
        result = results[key(cell)]
        plain = results[key({**cell, "arm": "none"})]
        row = [*_where(cell)[:2], cell["arm"]]
        for name in COMPARED.values():
            row.append(mean_and_deviation(result[name]))
            row.append("" if cell["arm"] == "none" else paired_difference(result[name], plain[name]))
        table.append(row)
    header = [column for name in COMPARED for column in (name, "difference")]
    return [markdown_table(["task", "setting", "arm", *header], table)]


def report(results: Results, command: str, discussion: Path) -> str:
    """The whole page, with a text that is written by hand at its end, if there is one."""
    return "\n".join(
        [
            "# Attention over sets: does it find the key instances?",
            "",
            f"Made by `{command}`; each line of `results/sets.jsonl` is a cell of 10 or 30 trainings. Bags of 10 ± 2 "
            "instances, 400 for training, 200 for validation, 400 for test; classes equally frequent; no instance in "
            f"two splits. MLP of 32 units, gated attention of 16, AdamW ({RATE:g}), batches of {BATCH}, {EPOCHS} "
            "epochs; the epoch with the lowest validation loss is measured on test. Trainings of a cell differ in "
            "the start of the network alone and are computed side by side (`benchmarks/together.py`, held to single "
            "Trainers by a test). Tasks and metrics are reconstructed from Haab et al., XKDD 2022 (arXiv 2207.13018). "
            "Attention AUROC: per bag, of the instances that decide, by the scores before softmax, mean over bags that "
            "have some and others.",
            "",
            "![Bag AUROC against attention AUROC of single trainings and ensembles](sets_scatter.png)",
            "",
            "## 1. Tasks, modalities, ensembles",
            "",
            f"30 trainings: mean [smallest, largest]. Ensembles: {DRAWS} drawn of each size from these trainings, mean "
            "of the attention weights, mean AUROC (worst draw). `worse letter`: AUROC for the letter that is found "
            "worse. `key rate`: share of the keys among the instances, which uniform attention has as `key mass`. "
            f"`wrong attention`: trainings with an attention AUROC below {STRICT.bad:g}, by kind. `silent / good`: "
            f"of those with a bag AUROC of {STRICT.good:g} or more, and Wilson's 95 % interval of the share.",
            "",
            *tasks_section(results),
            "![Attention AUROC of ensembles of growing size](sets_ensembles.png)",
            "",
            "### How members are combined",
            "",
            "Attention AUROC / bag AUROC of ensembles of 5, where some single attention is wrong. mean: of weights and "
            "probabilities; geometric: of both; logit: mean log-odds of both; rank: mean ranks of the attention, mean "
            "probabilities.",
            "",
            *combinations_section(results),
            "### Does disagreement foretell wrong attention?",
            "",
            "Ten members. Error: 1 - attention AUROC of the ensemble, per bag. Bags are left out as the members' mean "
            "pairwise Jensen-Shannon divergence falls; area under risk and coverage. Gain: 1 as good as leaving out by "
            "the error itself, 0 as good as in random order, below 0 worse than that. Digits.",
            "",
            *disagreement_section(results),
            "## 2. The search for silent failures",
            "",
            f"Silent in the strict sense: bag AUROC of {STRICT.good:g} or more on test with an attention AUROC of at "
            f"most {STRICT.bad:g}, in at least {SILENT_SHARE:.0%} of the trainings (bold). Digits, 10 trainings, bags "
            f"of seed {SEARCH_SEED}. `background`: probability that a background instance is of the favourite kind of "
            "its bag's class, in all splits; `poison`: share of negative bags with one instance of a kind of its own "
            "in train and validation, of positive bags in test; `label_noise`: share of wrong training labels. Of each "
            "task, the silent setting with the best attention, the least obvious one, goes on to fresh bags.",
            "",
            *search_section(results),
            "## 3. Mitigations",
            "",
            f"10 trainings, the same starts for every arm; random pretraining takes {PRETRAINING_EPOCHS} of the "
            f"{EPOCHS} epochs. Mean ± standard deviation; paired difference to `none` with its 95 % interval, bold "
            "where that leaves out 0.",
            "",
            *mitigations_section(results),
            discussion.read_text() if discussion.exists() else "",
        ]
    )
