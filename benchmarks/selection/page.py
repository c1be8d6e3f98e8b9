"""The page ``results/selection.md`` and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.cells import Results, key, markdown_table, mean_and_deviation
from benchmarks.selection.arms import NONE, SHARES, WARM_FREE
from benchmarks.selection.baselines import BASELINES, PASSES
from benchmarks.selection.data import SETTINGS
from benchmarks.selection.figures import draw_lottery, draw_scatter
from benchmarks.selection.plan import COUNTED, Plan, cell_of
from benchmarks.selection.statistics import FEWEST_SEEDS, FIDELITY, MARGIN, compared, failures, figures

COLUMNS = {
    "fidelity": "fidelity",
    "post_hoc_accuracy": "post-hoc",
    "post_hoc_rest": "rest",
    "fs_accuracy": "fresh reader",
    "fu_accuracy": "fresh, rest",
    "mask_only_accuracy": "mask only",
    "mask_only_bits": "mask bits",
    "mask_only_accuracy_train": "mask only, train",
    "precision": "precision",
    "auroc": "AUROC",
}
COMPARED = {name: COLUMNS[name] for name in ("fidelity", "post_hoc_accuracy", "fs_accuracy", "precision", "auroc")}
#: Random masks under which the reader first learns, of which the default is chosen.
DISTRIBUTIONS = ("pretraining, k-subsets", "pretraining, Bernoulli (REAL-X)", SHARES, "pretraining, all shares")

HEAD = """# Selecting features to explain a black box

Written by `{command}` from `selection.jsonl`; {done} of {wanted} cells are done. A selector sees the whole input and
keeps k positions of it, a reader sees these alone, and both learn to say what a black box says of the whole
(`BlackBoxExplainer`; one black box per data set; half of the epochs are the first phase of an arm that has two). All
figures are of the test split; the epoch is the one with the best fidelity on validation data, and what was chosen was
chosen there too.

- **fidelity**: the reader says what the black box says of the whole. **post-hoc**: the black box itself says it of the
  selected part alone; **rest**: of what was not selected. The floor is that of random selections of the same size.
- **fresh reader**: a new reader, which learned from the selections of training data and had no say in them; **fresh,
  rest**: the same of the rest (FS-A and FU-A of AIL).
- **mask only**: what a logistic regression reads of the black box's answer off *where* it was, held out; **train**,
  of masks of training examples.
- **precision**, **AUROC**: of what is selected, and of the scores, against evidence: {evidence}.

Means ± standard deviation over seeds. Differences are paired over seeds, with Student's 95 % intervals; bold where they
hold after Holm's correction over the arms of the table, at {fewest} seeds or more.
"""


def write(plan: Plan, results: Results, folder: Path, command: str) -> None:
    """Page and figures, of whatever is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = plan.cells()
    done = sum(key(cell) in results for cell in cells)
    evidence = "; ".join(f"{data}, {SETTINGS[data].evidence}" for data in plan.data if SETTINGS[data].evidence)
    text = [
        HEAD.format(command=command, done=done, wanted=len(cells), evidence=evidence or "none", fewest=FEWEST_SEEDS)
    ]
    discussion = folder / "selection_discussion.md"
    if discussion.is_file():
        text.append(discussion.read_text().rstrip() + "\n")
    text += [*_silent(plan, results, folder), *_distributions(plan, results)]
    for data in plan.data:
        text += _data(plan, results, data)
    if draw_scatter(plan, results, folder / "selection_scatter.png"):
        text.append("![fidelity and post-hoc accuracy](selection_scatter.png)\n")
    (folder / "selection.md").write_text("\n".join(text))


def _silent(plan: Plan, results: Results, folder: Path) -> list[str]:
    data, _ = plan.counted
    lines = []
    for arm in (*COUNTED, *(arm for arm in plan.arms(data) if arm not in COUNTED)):
        counts, post_hoc = failures(results, data, arm), list(figures(results, data, arm, "post_hoc_accuracy").values())
        if not counts.seeds:
            continue
        rate = f"{counts.silent} of {counts.seeds} [{counts.low:.2f}, {counts.high:.2f}]"
        lines.append([arm, rate, str(counts.noticed), f"{np.mean(post_hoc):.3f}", f"{min(post_hoc):.3f}"])
    text = [
        f"## Failures that nothing warns of: {data}\n",
        f"Silent: fidelity of {FIDELITY} or more, and post-hoc accuracy within {MARGIN} of random selections. Noticed: "
        "fidelity below that. Intervals after Clopper and Pearson.\n",
        markdown_table(["arm", "silent failures", "noticed", "mean post-hoc", "least"], lines),
    ]
    if draw_lottery(plan, results, folder / "selection_lottery.png"):
        text.append("![each seed](selection_lottery.png)\n")
    return text


def _distributions(plan: Plan, results: Results) -> list[str]:
    lines = []
    for arm in DISTRIBUTIONS:
        found = [
            figures(results, data, arm, name, "val") for data in plan.tuning for name in ("post_hoc_accuracy", "auroc")
        ]
        lines.append([arm, *(mean_and_deviation(values.values()) for values in found)])
    header = ["first phase under", *(f"{data}: {name}" for data in plan.tuning for name in ("post-hoc", "AUROC"))]
    return ["## Which random masks, on validation data\n", markdown_table(header, lines)]


def _data(plan: Plan, results: Results, data: str) -> list[str]:
    arms = [arm for arm in plan.arms(data) if figures(results, data, arm, "fidelity")]
    setting = SETTINGS[data]
    text = [f"## {data}, k = {setting.k}\n"]
    floor = [value for arm in arms for value in figures(results, data, arm, "random_accuracy").values()]
    if floor:
        text.append(f"Random selections of this size: {np.mean(floor):.3f}.\n")
    columns = [name for name in COLUMNS if any(figures(results, data, arm, name) for arm in arms)]
    rows = [
        [arm, str(len(figures(results, data, arm, "fidelity"))), *_means(results, data, arm, columns)] for arm in arms
    ]
    if rows:
        text.append(markdown_table(["arm", "seeds", *(COLUMNS[name] for name in columns)], rows))
    for reference in (NONE, WARM_FREE):
        if reference in arms and len(arms) > 1:
            text += _differences(results, data, arms, reference)
    return text + _baselines(results, data)


def _means(results: Results, data: str, arm: str, columns: Sequence[str]) -> list[str]:
    return [mean_and_deviation(figures(results, data, arm, name).values()) for name in columns]


def _differences(results: Results, data: str, arms: Sequence[str], reference: str) -> list[str]:
    found = {name: compared(results, data, arms, reference, name) for name in COMPARED}
    columns = [name for name in COMPARED if found[name]]
    others = [arm for arm in arms if arm != reference]
    rows = [[arm, *(str(found[name].get(arm, "-")) for name in columns)] for arm in others]
    return [f"Less {reference}:\n", markdown_table(["arm", *(COMPARED[name] for name in columns)], rows)]


def _baselines(results: Results, data: str) -> list[str]:
    rows = []
    for name in BASELINES:
        result = results.get(key(cell_of(data, name, 0)), {})
        if "test/post_hoc_accuracy" not in result:
            continue
        values = [
            f"{result[f'test/{one}']:.3f}" if f"test/{one}" in result else "-"
            for one in ("post_hoc_accuracy", "post_hoc_rest", "precision", "auroc")
        ]
        rows.append([name, f"{result['test/examples']:.0f}", *values, PASSES[name]])
    if not rows:
        return []
    header = ["without training", "examples", "post-hoc", "rest", "precision", "AUROC", "passes per example"]
    return [
        "What trains nothing, at the same k (evidence keeps all of it). A trained selection takes no pass of the black "
        "box per example, and one per training example beforehand.\n",
        markdown_table(header, rows),
    ]
