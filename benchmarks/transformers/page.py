"""The page of ``benchmarks.transformers``: whatever is finished, to Markdown; what is missing is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cells import Cell, Results, key, markdown_table
from benchmarks.paired import metric_of
from benchmarks.tables import Table, judged, label
from benchmarks.transformers.measure import RECALL
from benchmarks.transformers.plan import ALL_HEADS, HEADS, TUNING, VARIANTS, Plan, drawn, masked
from benchmarks.transformers.training import CLIP, DECAY, RANDOM_EPOCHS, WARMUP

OURS = ("ours/comprehensiveness", "ours/sufficiency", "ours/aopc", "ours/log_odds", "auprc")
THEIRS = ("mask_lrp/aopc", "mask_lrp/log_odds", "mask_lrp/sufficiency")
RECALLED = ("answer_recall",)
MITIGATED = ("accuracy", "kendall_gradient", "comprehensiveness_gain", "sufficiency_gain", "leaked_bits")
PARTS = ("fine-tuning and attention heads", "every method", "controls of the choice", "mitigations")
REFERENCE = masked("released")


def columns_of(task: str) -> tuple[str, ...]:
    """What an explanation is judged by."""
    return RECALLED if task == "QA" else tuple(name for name in (*OURS, *THEIRS) if task != "NLI" or name != "auprc")


def table_of(plan: Plan, number: int, task: str, results: Results) -> Table:
    """The table of a part and task."""
    return Table.from_cells(plan.table(number, task), results)


def page(plan: Plan, results: Results, command: str, discussion: Path) -> str:
    """The whole page; ``discussion`` is appended if it is there."""
    parts = [
        "# Transformers: explanations, important attention heads, mitigated self-attention",
        "",
        f"Made by `{command}`; each row of a table, under each seed, is a line of `transformers.jsonl`, which also "
        "holds the figures of its test texts.",
        "",
        *_progress(plan, results),
        *_settings(plan, results),
        *_models(plan, results),
        *_methods(plan, results),
        *_choice(plan, results),
        *_mitigations(plan, results),
    ]
    if discussion.is_file():
        parts += [discussion.read_text()]
    return "\n".join(parts)


def _progress(plan: Plan, results: Results) -> list[str]:
    lines = []
    for number, name in enumerate(PARTS):
        cells = [cell for lot in plan.stages(number) for cell in lot]
        missing = sum(key(cell) not in results for cell in cells)
        if missing:
            lines.append(f"- part {number}, {name}: {missing} of {len(cells)} cells are missing.")
    return ["**Not complete:**", "", *lines, ""] if lines else []


def _settings(plan: Plan, results: Results) -> list[str]:
    seconds = sum(result.get("seconds", 0.0) for result in results.values())
    sizes = []
    for task in plan.tasks:
        cell = plan.cell(task, TUNING)
        sizes.append(
            f"{task}: {cell['train'] or 'all'} training texts of up to {cell['length']} tokens, {cell['epochs']} "
            f"epochs, batch {cell['batch']}, {cell['explained']} test texts explained"
        )
    first = plan.cell(plan.tasks[0], TUNING)
    return [
        "## Settings",
        "",
        f"One model, fine-tuned once on each task: AdamW ({first['rate']:g}, weight decay {DECAY:g}), linear warm-up "
        f"in {WARMUP:.0%} of the steps, gradients clipped at {CLIP:g}, the epoch with the least validation loss. "
        + ". ".join(sizes)
        + ". Nothing is tuned, on test texts or others. Cut for two cores: one model per task in parts 0 to 2, few "
        "epochs, the beginning of long texts, a part of the test texts explained, few steps and samples.",
        "",
        "SST: two classes, evidence are the words whose own label is not neutral. Movies: the beginning of each "
        "review, evidence are the passages that people marked. NLI: trained on counterfactual pairs, validated and "
        "tested on SNLI; no evidence. QA: the paragraphs of XQuAD, a tenth of the articles each held out for "
        f"validation and test; what is measured there is the recall of the answer among the {RECALL} best-ranked "
        "tokens (erasing tokens would move the spans), of windows that hold the answer.",
        "",
        "Preset `ours`: predicted class, tokens deleted, comprehensiveness and sufficiency at 1, 5, 10, 20, 50 %, "
        "AOPC and log-odds in ninths. Preset `mask_lrp`: gold class, tokens replaced by [PAD], ninths of all tokens, "
        "texts of 20 tokens or more, mean over texts; comprehensiveness is AOPC there. Each preset measures "
        "explanations of the class that it watches. Values of the two cannot be compared.",
        "",
        f"Integrated gradients: {first['steps']} steps; SmoothGrad: {first['samples']} samples. `released` is "
        "Mask-LRP as its code does it, `clean` as we read its formula (docs/methods.md). Attention heads are chosen on "
        f"{first['sentences']:,} sentences of the training part of UD English EWT, nothing else.",
        "",
        "In brackets 95 % bootstrap intervals over texts (and over seeds or draws where there are several: each "
        "resample draws both). Differences are paired; bold where the interval leaves out 0, and then the verdict. "
        f"The intervals are not corrected for their number. {len(results)} cells took {seconds / 3600:.1f} hours of "
        "one process.",
        "",
    ]


def _models(plan: Plan, results: Results) -> list[str]:
    lines, heads = [], []
    for task in plan.tasks:
        tuned = results.get(key(plan.cell(task, TUNING, kind=TUNING)))
        if tuned is not None:
            one = tuned["figures"]
            texts = " / ".join(f"{one[f'{split} texts']:,}" for split in ("train", "val", "test"))
            right = [f"{name} {one[name]:.3f}" for name in ("accuracy", "exact_match", "f1") if name in one]
            lines.append([task, texts, ", ".join(right).replace("_", " "), f"{tuned.get('seconds', 0) / 60:.1f}"])
        found = results.get(key(plan.cell(task, HEADS, kind=HEADS)))
        for name in plan.selections if found is not None else ():
            chosen = found["figures"][name]  # type: ignore[index]
            layers = ", ".join(
                f"{number}: {' '.join(map(str, layer))}" for number, layer in enumerate(chosen["layers"])
            )
            strongest = ", ".join(f"{kind} {value:.2f}" for kind, value in chosen["strongest"].items())
            count = f"{sum(map(len, chosen['layers']))} of {found['figures']['of']}"  # type: ignore[index]
            heads.append([task, name, count, layers, strongest])
    if not lines:
        return []
    criteria = [
        f"`{name}`: above the commonest offset by {one['margin']:g} ({one['direction'].replace('_', ' ')}"
        f"{', special tokens not counted' if one['ignore_special'] else ''}), or at one offset in more than "
        f"{one['share']:.0%}"
        for name, one in plan.selections.items()
    ]
    models = [
        "## 0. Models and their attention heads",
        "",
        markdown_table(["task", "texts: train / val / test", "test", "minutes"], lines),
    ]
    if not heads:
        return models
    return [
        *models,
        "Chosen attention heads of each layer, from 0. " + ". ".join(criteria) + ".",
        "",
        markdown_table(["task", "choice", "attention heads", "layer: numbers", "strongest"], heads),
    ]


def _methods(plan: Plan, results: Results) -> list[str]:
    sections: list[str] = []
    for task in plan.tasks:
        table = table_of(plan, 1, task, results)
        if not table.done:
            continue
        sections += [f"### {task}", "", f"{table.done} of {table.wanted} methods.", ""]
        for name, columns in (("ours", OURS), ("mask_lrp", THEIRS), ("", RECALLED)):
            columns = tuple(column for column in columns if column in columns_of(task))
            if not columns:
                continue
            title = f"Preset `{name}`" if name else f"Recall of the answer among the {RECALL} best-ranked tokens"
            sections += [f"{title}:", "", table.intervals(columns), f"Less {REFERENCE}:", ""]
            sections += [table.differences(columns, REFERENCE)]
        sections += [f"![differences](transformers_{task.lower()}.png)", ""]
    return ["## 1. Every method", "", *sections] if sections else []


def compared(plan: Plan, results: Results, task: str, variant: str, selection: str) -> Table:
    """Mask-LRP with chosen attention heads, with all, and with as many drawn at random: the same texts in every row.

    The first two do not depend on the draw, and stand under every seed.
    """

    def under_each(cell: Cell) -> dict[int, object]:
        return {seed: results[key(cell)] for seed in range(plan.draws)} if key(cell) in results else {}

    draws = [plan.cell(task, drawn(variant, selection), seed) for seed in range(plan.draws)]
    rows = {
        "chosen": under_each(plan.cell(task, masked(variant, selection))),
        "all": under_each(plan.cell(task, ALL_HEADS[variant])),
        "random": {cell["seed"]: results[key(cell)] for cell in draws if key(cell) in results},
    }
    return Table(rows, 2 + plan.draws)  # type: ignore[arg-type]


def tally(verdicts: Sequence[str]) -> str:
    """How often each verdict was reached, such as ``3 better, 1 undecided``."""
    found = Counter(verdicts)
    return ", ".join(f"{found[name]} {name}" for name in ("better", "worse", "undecided") if found[name]) or "none yet"


def _choice(plan: Plan, results: Results) -> list[str]:
    answers, tables = [], []
    for selection in plan.selections:
        for variant in VARIANTS:
            reached: dict[str, list[str]] = {"all": [], "random": []}
            for task in plan.tasks:
                table, columns = compared(plan, results, task, variant, selection), columns_of(task)
                lines = []
                for other, meaning in (("all", "all attention heads"), ("random", "as many drawn at random")):
                    found = {name: table.difference("chosen", other, name) for name in columns}
                    known = {name: one for name, one in found.items() if one is not None}
                    reached[other] += [one.verdict(metric_of(name).direction) for name, one in known.items()]
                    lines.append([f"less {meaning}", *(judged(found[name], name) for name in columns)])
                if any(cell != "-" for line in lines for cell in line[1:]):
                    title = f"{task}, {variant}, `{selection}` attention heads:"
                    names = [f"{'Mask-LRP: ' if name in THEIRS else ''}{label(name)}" for name in columns]
                    tables += [title, "", markdown_table(["", *names], lines)]
            answers.append([f"{variant}, `{selection}`", tally(reached["all"]), tally(reached["random"])])
    if not tables:
        return []
    return [
        "## 2. Does masking to important attention heads help?",
        "",
        "Over all tasks and measures, how often Mask-LRP with chosen attention heads is better or worse than with all "
        f"(does it help?), and than with as many in each layer drawn at random, {plan.draws} times (are they the right "
        "ones?). All attention heads in `clean` is TransAtt; in `released` each map is twice as large then.",
        "",
        markdown_table(["", "less all attention heads", "less random ones"], answers),
        *tables,
    ]


def _mitigations(plan: Plan, results: Results) -> list[str]:
    task, sizes = plan.mitigated
    table = table_of(plan, 3, task, results)
    if not table.done:
        return []
    described = ", ".join(f"{name} {value}" for name, value in sizes.items())
    return [
        f"## 3. Mitigated self-attention, {task}",
        "",
        f"{table.done} of {table.wanted} trainings ({described}). What acts, acts on every attention head of the last "
        f"layer, in the row of [CLS]; random pretraining takes {RANDOM_EPOCHS} of the epochs, weighting begins after "
        "the first. Faithfulness is that of this row, mean over attention heads; tau gradient holds it fixed; `- "
        "random`: less the same of random rankings. Values are contextual: each position can carry the whole text, "
        "so that little is to be expected of the row. Mean ± standard deviation over seeds.",
        "",
        table.means(MITIGATED),
        "Less `none`, paired over seeds and texts (bits and accuracy: of the whole test split, bits of its first 400):",
        "",
        table.differences(MITIGATED),
    ]
