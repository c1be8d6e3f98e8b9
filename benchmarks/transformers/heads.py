"""Attention heads of a fine-tuned model: those that criteria choose, and as many that are drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell
from benchmarks.measuring import device, order_at
from benchmarks.transformers.data import CONLLU
from benchmarks.transformers.plan import SELECTED
from benchmarks.transformers.training import file_of, tuned
from lightning_attn.attribution.heads import (
    Criterion,
    HeadStatistics,
    Positional,
    Syntactic,
    align,
    head_statistics,
    important_heads,
    random_heads,
)
from lightning_attn.attribution.heads.heads_file import read_heads, write_heads
from lightning_attn.data import HuggingFaceProcessor
from lightning_attn.data.conllu import read_conllu
from lightning_attn.visualization.heads_figure import heads_figure

RELATIONS = ("nsubj", "obj", "amod", "advmod")


def criteria_of(selection: Mapping[str, Any]) -> list[Criterion]:
    """What makes an attention head important (METHODS 5.4)."""
    return [Syntactic(selection["margin"], selection["direction"]), Positional(selection["share"])]


def found_heads(cell: Cell, root: str, model: str, work: str) -> dict[str, Any]:
    """Choose attention heads by every selection of a cell, keep them in ``work``, and say how many there are.

    Returns:
        By selection, chosen attention heads of each layer, and how strong the best ones are.
    """
    network = tuned(cell, root, model, work)[0].to(device())
    processor = HuggingFaceProcessor(model)
    processor.fit([])
    parses = read_conllu(Path(root) / CONLLU)
    some = [parses[row] for row in order_at(len(parses))[: cell["sentences"]]]  # the file goes from genre to genre
    aligned = align(some, processor.tokenizer, RELATIONS, network.max_length, processor.pad_id)
    # What special tokens get is counted or not: two readings for all selections.
    statistics: dict[bool, HeadStatistics] = {}
    result: dict[str, Any] = {"sentences": len(aligned), "of": network.depth * network.heads_per_layer}
    for name, selection in cell["selections"].items():
        ignored = selection["ignore_special"]
        if ignored not in statistics:
            statistics[ignored] = head_statistics(network, aligned, ignore_special=ignored)
        criteria = criteria_of(selection)
        chosen = important_heads(statistics[ignored], criteria)
        file = file_of(cell, SELECTED, work, f"-{name}.json")
        unfinished = file.with_suffix(f".{os.getpid()}")
        write_heads(unfinished, chosen, network, {"criteria": selection, **statistics[ignored].as_dict()})
        heads_figure(statistics[ignored], criteria, f"{cell['task']}: {name}").savefig(file.with_suffix(".png"))
        unfinished.replace(file)
        strongest = {one.name: float(one.strength(statistics[ignored]).max()) for one in criteria}
        result[name] = {"layers": chosen, "strongest": strongest}
    return {"figures": result, "rows": {}}


def chosen_heads(cell: Cell, selection: str, root: str, model: str, work: str) -> list[list[int]]:
    """The attention heads of each layer that a selection chose, found now if they are not there yet."""
    file = file_of(cell, SELECTED, work, f"-{selection}.json")
    if not file.is_file():
        found_heads(cell, root, model, work)
    return read_heads(file, tuned(cell, root, model, work)[0])


def drawn_heads(cell: Cell, selection: str, root: str, model: str, work: str) -> list[list[int]]:
    """As many in each layer, drawn by the seed of the cell."""
    chosen = chosen_heads(cell, selection, root, model, work)
    return random_heads(chosen, tuned(cell, root, model, work)[0].heads_per_layer, cell["seed"])


def every_head(cell: Cell, root: str, model: str, work: str) -> list[list[int]]:
    """All attention heads of each layer."""
    network = tuned(cell, root, model, work)[0]
    return [list(range(network.heads_per_layer)) for _ in range(network.depth)]
