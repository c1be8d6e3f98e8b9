"""The page of ``benchmarks.attention_is_not_explanation``: measurements to Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.cells import Cell, key, markdown_table, mean_and_deviation, paired_difference

ARMS = ("none", "random_pretraining", "instance_weighting", "both")
ATTENTIONS = ("additive", "dot")
ENCODERS = ("bilstm", "cnn", "average")
MODELS = tuple((encoder, attention) for attention in ATTENTIONS for encoder in ENCODERS)
TASKS = {"nli": "inference", "babi": "bAbI 1"}
COMMAND = "python -m benchmarks.attention_is_not_explanation --data DIR --vectors FILE"
NEAR = 0.10

# Result files of the authors' repository (successar/AttentionExplanation), SST test, one training each: accuracy, then
# mean tau and share of p <= .05 of attention-gradient, attention-LOO and gradient-LOO.
PUBLISHED = {
    ("bilstm", "additive"): (0.808, 0.351, 0.49, 0.291, 0.36, 0.656, 0.91),
    ("average", "additive"): (0.807, 0.606, 0.85, 0.623, 0.88, 0.558, 0.73),
    ("cnn", "additive"): (0.823, 0.477, 0.75, 0.352, 0.51, 0.488, 0.74),
    ("bilstm", "dot"): (0.823, 0.073, 0.09, 0.064, 0.07, 0.708, 0.94),
    ("average", "dot"): (0.799, 0.347, 0.50, 0.314, 0.42, 0.661, 0.82),
    ("cnn", "dot"): (0.812, 0.240, 0.25, 0.215, 0.21, 0.636, 0.82),
}
AGREEMENT = (
    ("accuracy", "accuracy"),
    ("tau gradient", "gradient"),
    ("p <= .05", "gradient_p"),
    ("tau LOO", "loo"),
    ("p <= .05", "loo_p"),
    ("tau gradient-LOO", "gradient_loo"),
    ("p <= .05", "gradient_loo_p"),
)
MITIGATED = {
    "accuracy": "accuracy",
    "tau gradient": "gradient",
    "without a_i": "gradient_without_attention",
    "tau LOO": "loo",
    "permutation": "permutation",
    "max JSD": "jsd",
}


HEAD = f"""
# Attention is not Explanation: three tasks, four experiments, with and without mitigations

Made by `{COMMAND}`, with FILE from `python -m benchmarks.word_vectors --imdb DIR/imdb --output FILE`; each network is a
line of `results/attention_is_not_explanation.jsonl`. Mean ± standard deviation over 3 seeds throughout. Tau is
Kendall's tau-b, its mean over the test set; the attention is held fixed in the gradient, as published; leave-one-out
deletes the word. Of each test set at most {{texts:,}} texts are measured, and {{adversarial:,}} where adversaries are
searched for, drawn once; accuracy is of all.

![SST: agreement beside the published figures, and after each mitigation](attention_is_not_explanation.png)
"""

SST = """
## 1. SST, beside the published figures

In brackets the result files of the authors' repository, one training each. Ours follows their recipe: words without
punctuation, sentences of six words or more, 300 fastText numbers per word, unknown words at 0, a sigmoid output, Adam
(amsgrad, 1e-3), batch 32, the epoch with the best validation AUROC but never the first. It differs in the corpus of the
word vectors (IMDB reviews; theirs is Simple Wikipedia), in the number of epochs (6; theirs 8) and in the loss, which we
do not weight by class.
"""

PAIRS = """
## 2. Inference and question answering

The premise, or the story, is attended under an encoded query; no figures were published for these sets. Inference is
trained on 8,330 counterfactually revised pairs and tested on SNLI (chance .33); bAbI 1 has 1,000 questions for training
and validation (chance .17).
"""

OTHER_WEIGHTS = """
## 3. Other weights in place of the learned ones

Permutation: median change of the output (total variation distance) over 100 shuffles. Max JSD: largest divergence from
the attention while the output changes by at most .05, in nats, at most ln 2 = .693. Uniform, random, and the weights of
the same model from another seed: change of the output, in brackets the change in accuracy.
"""

MITIGATIONS = """
## 4. Does attention explain more after mitigation?

SST as in section 1: contextual values, 6 epochs, 2 of them random pretraining where it is used. `without a_i` is the
agreement with the gradient divided by the weight: where values are local (average) and the attention is held fixed, the
weight is a factor of the gradient. First the paired difference to `none` with its 95 % interval over seeds, bold where
it leaves out 0; then the figures themselves.
"""

DIAGNOSIS = """
## 5. Do learned weights help a network without context?

Average, retrained under weights that it cannot change (Wiegreffe and Pinter 2019).
"""


class Measurements:
    """What is finished, by cell.

    Args:
        results: As :func:`benchmarks.cells.finished` reads them.
        cells: All that belong to the experiment.
    """

    def __init__(self, results: Mapping[str, Mapping[str, float]], cells: Sequence[Cell]) -> None:
        self.rows = [(cell, results[key(cell)]) for cell in cells if key(cell) in results]

    def column(self, name: str, **chosen: Any) -> list[float]:
        """A figure of every finished cell with these entries, in the order of the seeds."""
        return [row[name] for cell, row in self.rows if chosen.items() <= cell.items() and name in row]

    def has(self, **chosen: Any) -> bool:
        """Whether there is such a cell."""
        return any(chosen.items() <= cell.items() for cell, _ in self.rows)

    def whole(self, task: str, arm: str = "none") -> bool:
        """Whether every model of a task is there."""
        return all(self.has(task=task, encoder=encoder, attention=attention, arm=arm) for encoder, attention in MODELS)

    def mean(self, name: str, **chosen: Any) -> float:
        """Mean of :meth:`column`."""
        return float(np.mean(self.column(name, **chosen)))


def verdicts(found: Measurements) -> list[str]:
    """How the agreement with gradients on SST compares with the published one, as sentences of a list."""
    taus = {
        (encoder, attention): found.mean("gradient", task="sst", encoder=encoder, attention=attention, arm="none")
        for encoder, attention in MODELS
    }
    off = {model: tau - PUBLISHED[model][1] for model, tau in taus.items()}
    far = [f"{' '.join(model)} by {value:+.3f}" for model, value in off.items() if abs(value) > NEAR]
    lines = [
        f"- {len(off) - len(far)} of {len(off)} models are within {NEAR:.2f} of the published tau against gradients"
        + (f"; off are {', '.join(far)}." if far else ".")
    ]
    order = ("average", "cnn", "bilstm")
    for attention in ATTENTIONS:
        figures = [taus[encoder, attention] for encoder in order]
        holds = all(one > other for one, other in pairwise(figures))
        shown = " > ".join(f"{encoder} {value:.3f}" for encoder, value in zip(order, figures, strict=True))
        lines.append(f"- Published order with {attention} attention, {shown}: {'holds' if holds else 'does not hold'}.")
    for encoder in ENCODERS:
        one, other = taus[encoder, "additive"], taus[encoder, "dot"]
        holds = "holds" if one > other else "does not hold"
        lines.append(f"- Published order for {encoder}, additive {one:.3f} > dot {other:.3f}: {holds}.")
    return lines


def agreement_table(found: Measurements) -> str:
    """SST beside the published figures."""
    rows = []
    for model, published in PUBLISHED.items():
        chosen = {"task": "sst", "encoder": model[0], "attention": model[1], "arm": "none"}
        columns = [found.column(name, **chosen) for _, name in AGREEMENT]
        cells = [
            f"{mean_and_deviation(mine)} ({theirs:.3f})"
            if position % 2 or position == 0
            else f"{np.mean(mine):.2f} ({theirs:.2f})"
            for position, (mine, theirs) in enumerate(zip(columns, published, strict=True))
        ]
        rows.append([*model, *cells])
    return markdown_table(["encoder", "attention", *(title for title, _ in AGREEMENT)], rows)


def epochs_table(found: Measurements) -> str:
    """Agreement with gradients on the validation split, epoch by epoch."""
    rows = []
    last = 0
    for encoder, attention in MODELS:
        chosen = {"task": "sst", "encoder": encoder, "attention": attention, "arm": "none"}
        taus: list[str] = []
        while values := found.column(f"tau/{len(taus)}", **chosen):
            taus.append(mean_and_deviation(values))
        measured = ", ".join(f"{epoch:.0f}" for epoch in found.column("epoch", **chosen))
        rows.append([encoder, attention, *taus, measured])
        last = max(last, len(taus))
    return markdown_table(["encoder", "attention", *(f"epoch {epoch}" for epoch in range(last)), "measured"], rows)


def other_attention_table(found: Measurements, tasks: Sequence[str]) -> str:
    """Permuted, adversarial and counterfactual attention."""
    rows = []
    for task in tasks:
        for encoder, attention in MODELS:
            chosen = {"task": task, "encoder": encoder, "attention": attention, "arm": "none"}
            row = [task, encoder, attention]
            row += [mean_and_deviation(found.column(name, **chosen)) for name in ("largest", "permutation", "jsd")]
            for source in ("uniform", "random", "other"):
                change = found.mean(f"{source}_accuracy", **chosen) - found.mean("accuracy", **chosen)
                row.append(f"{found.mean(f'{source}_change', **chosen):.3f} ({change:+.3f})")
            rows.append(row)
    header = ["task", "encoder", "attention", "largest weight", "permutation", "max JSD", "uniform", "random", "other"]
    return markdown_table(header, rows)


def tasks_table(found: Measurements, tasks: Sequence[str]) -> str:
    """Agreement on the tasks with a query."""
    columns = (*AGREEMENT, ("without a_i", "gradient_without_attention"))
    rows = [
        [TASKS[task], encoder, attention]
        + [
            mean_and_deviation(found.column(name, task=task, encoder=encoder, attention=attention, arm="none"))
            for _, name in columns
        ]
        for task in tasks
        for encoder, attention in MODELS
    ]
    return markdown_table(["task", "encoder", "attention", *(title for title, _ in columns)], rows)


def mitigation_tables(found: Measurements) -> tuple[str, str]:
    """The differences that each mitigation makes to each model, and the figures themselves."""

    def over_models(name: str, arm: str) -> list[float]:
        columns = [
            found.column(name, task="sst", encoder=encoder, attention=attention, arm=arm)
            for encoder, attention in MODELS
        ]
        return list(np.mean(columns, axis=0))

    def rows(one: Callable[[str, str, dict[str, str]], str], arms: Sequence[str]) -> list[list[str]]:
        result = []
        for arm in arms:
            for encoder, attention in MODELS:
                model = {"encoder": encoder, "attention": attention}
                result.append([arm, encoder, attention, *(one(name, arm, model) for name in MITIGATED.values())])
        return result

    def value(name: str, arm: str, model: dict[str, str]) -> str:
        return mean_and_deviation(found.column(name, task="sst", arm=arm, **model))

    def difference(name: str, arm: str, model: dict[str, str]) -> str:
        pair = [found.column(name, task="sst", arm=one, **model) for one in (arm, "none")]
        return paired_difference(*pair)

    header = ["arm", "encoder", "attention", *MITIGATED]
    mean = [
        [
            arm,
            "all six",
            "",
            *(paired_difference(over_models(name, arm), over_models(name, "none")) for name in MITIGATED.values()),
        ]
        for arm in ARMS[1:]
    ]
    return markdown_table(header, mean + rows(difference, ARMS[1:])), markdown_table(header, rows(value, ARMS))


def diagnosis_table(found: Measurements) -> str:
    """Average under learned, uniform and the BiLSTM's weights."""
    names = {
        "additive": "learned with it (additive)",
        "dot": "learned with it (dot)",
        "uniform": "uniform",
        "frozen": "of the BiLSTM (additive), frozen",
    }
    rows = []
    for attention, shown in names.items():
        chosen = {"task": "sst", "encoder": "average", "attention": attention, "arm": "none"}
        accuracy = found.column("accuracy", **chosen) or found.column("test/accuracy", **chosen)
        rows.append([shown, mean_and_deviation(accuracy), mean_and_deviation(found.column("val/auroc", **chosen))])
    return markdown_table(["weights", "test accuracy", "validation AUROC"], rows)


def page(found: Measurements, sample: Mapping[str, int]) -> str:
    """The Markdown page, of the parts that are finished."""
    whole = [task for task in ("sst", *TASKS) if found.whole(task)]
    parts = [HEAD.format(**sample)]
    if "sst" in whole:
        taus = "Tau against gradients on validation after each epoch, and which epoch was measured, seed by seed:"
        parts += [SST, agreement_table(found), "\n".join(verdicts(found)), taus, epochs_table(found)]
    if pairs := [task for task in whole if task in TASKS]:
        parts += [PAIRS, tasks_table(found, pairs)]
    if whole:
        parts += [OTHER_WEIGHTS, other_attention_table(found, whole)]
    if all(found.whole("sst", arm) for arm in ARMS):
        parts += [MITIGATIONS, *mitigation_tables(found)]
    if found.has(attention="frozen"):
        parts += [DIAGNOSIS, diagnosis_table(found)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n\n"
