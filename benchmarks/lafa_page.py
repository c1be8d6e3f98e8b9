"""The page of ``benchmarks.lafa``: measurements to Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cells import Cell, key, markdown_table

COMMAND = "python -m benchmarks.lafa --data DIR --minilm FOLDER"
TASKS = {"sst2": "SST, two classes", "sst5": "SST, five classes", "ade": "ADE, sentences with an adverse effect"}
MODELS = {"bilstm": "BiLSTM", "minilm": "MiniLM-L6"}
NAMES = {"simple_gradient": "SimpleGrad", "input_gradient": "InputGrad"}
#: What LAFA is held against, and what a difference to it says.
CONTROLS = {
    "LAFA, lambda 0": "borrowing at all",
    "base + lexicon": "nearness, over the mean importance of the word",
    "LAFA, random texts": "nearness, over random texts",
    "LAFA, other classes": "the class of the neighbours",
    "SmoothGrad": "over SmoothGrad",
    "integrated gradients": "over integrated gradients",
}


def page(results: Mapping[str, Any], wanted: Sequence[Cell], discussion: str) -> str:
    """The whole page."""
    parts = [
        "# LAFA: importance borrowed from similar texts, with the controls its authors left out",
        "",
        f"Made by `{COMMAND}`; each section is a line of `results/lafa.jsonl`. BiLSTM with additive attention and word "
        "vectors learned from scratch; MiniLM-L6 fine-tuned under the same attention. Evidence: in SST how far a "
        "word's own label is from neutral, in ADE the words of drug and effect; each subword has the evidence of its "
        "word. Pearson, AUPRC and AUROC are means over test texts, texts where they are undefined left out; "
        "comprehensiveness and sufficiency delete 1, 5, 10, 20 and 50 % of the tokens. In brackets the 95 % bootstrap "
        "interval over texts. Kernel parameters, lambda, layer, number and class of neighbours, cut-off, base score "
        "and the noise of SmoothGrad were chosen by Pearson (ADE: AUROC) on validation texts, for every method and "
        "every control alike; `LAFA` is the kernel that was best there. How texts become vectors is reconstructed "
        "(mean over the words), and so is how a neighbour becomes a reference of SHAP.",
        "",
        verdict(results, wanted),
        "",
        discussion,
    ]
    for cell in wanted:
        if key(cell) in results:
            parts += section(cell, results[key(cell)])
    return "\n".join(parts)


def section(cell: Cell, result: Mapping[str, Any]) -> list[str]:
    """One task on one model."""
    figures, differences = result["figures"], result["differences"]
    agreement = ["auroc", "auprc"] if cell["task"] == "ade" else ["pearson", "auprc"]
    metrics = [*agreement, "comprehensiveness", "sufficiency"]
    accuracy = sum(result["accuracy"]) / len(result["accuracy"])
    rows = [
        [NAMES.get(name, name), *(_interval(figures[metric][name]) for metric in metrics)]
        for name in figures[metrics[0]]
    ]
    paired = [
        [name, meaning, *(_difference(differences[metric][name]) for metric in metrics)]
        for name, meaning in CONTROLS.items()
    ]
    chosen = [[name, *(run.get(name, "") for run in result["chosen"])] for name in result["chosen"][0]]
    networks = "1 network" if cell["seeds"] == 1 else f"{cell['seeds']} networks, their mean for each text"
    return [
        f"## {TASKS[cell['task']]}, {MODELS[cell['model']]}",
        "",
        f"{networks}; accuracy {accuracy:.3f}. At most {cell['test']:,} test texts, about {cell['erased']} of them for "
        f"erasure; {cell['validation']} validation texts; {cell['samples']} steps or samples.",
        "",
        markdown_table(["method", *metrics], rows),
        "LAFA less the other, paired over texts; bold where the interval leaves out 0.",
        "",
        markdown_table(["less", "says what is gained by", *metrics], paired),
        "<details><summary>Chosen on validation</summary>",
        "",
        markdown_table(["method", *(f"seed {seed}" for seed in range(len(result["chosen"])))], chosen),
        "</details>",
        "",
    ]


def verdict(results: Mapping[str, Any], wanted: Sequence[Cell]) -> str:
    """Does nearness add anything over the global lexicon? One line a section."""
    lines = []
    for cell in wanted:
        if key(cell) not in results:
            continue
        metric = "auroc" if cell["task"] == "ade" else "pearson"
        differences = results[key(cell)]["differences"][metric]
        parts = [f"{label} {_difference(differences[name])}" for name, label in _ASKED.items()]
        lines.append(f"- {TASKS[cell['task']]}, {MODELS[cell['model']]} ({metric}): {'; '.join(parts)}.")
    return "\n".join(["**LAFA less each control** (bold: the interval leaves out 0):", "", *lines])


_ASKED = {
    "LAFA, lambda 0": "its own base score",
    "base + lexicon": "base and global lexicon",
    "LAFA, random texts": "random neighbours",
    "LAFA, other classes": "neighbours of other classes",
}


def _interval(value: Sequence[float]) -> str:
    mean, low, high = value
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _difference(value: Sequence[float]) -> str:
    mean, low, high = value
    text = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
