"""The page of ``benchmarks.shortcut``: whatever is finished, to Markdown; what is missing is said."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cells import Results, key, markdown_table
from benchmarks.shortcut.arms import DROPOUT, OURS, PUBLISHED, SHARE
from benchmarks.shortcut.plan import ABLATIONS, MASKS, Plan
from benchmarks.shortcut.training import DECAY
from benchmarks.shortcut.verdict import ACCURACY_LOSS, PERTURBATION, SHORTCUT, Goal, goal
from benchmarks.tables import Table, judged, label

SHORTCUTS = ("leaked_bits", "encoding_gain", "evalx_accuracy")
FAITHFUL = (
    "kendall_gradient",
    "kendall_loo",
    "comprehensiveness_gain",
    "sufficiency_gain",
    "flip_fraction",
    "flip_first",
)
MEANS = (
    "kendall_gradient",
    "kendall_loo",
    "comprehensiveness",
    "comprehensiveness_gain",
    "sufficiency",
    "sufficiency_gain",
)
VERSION_A = ("accuracy", *MEANS, "flip_fraction", "flip_first", "auprc")
MASK_COLUMNS = (
    *SHORTCUTS,
    "encoding_bits",
    "encoding_bits_control",
    "evalx_random_accuracy",
    "length_bits",
    "mask_only_accuracy",
    "fano_bits",
)
VERSION_B = ("b/accuracy", *(f"b/{name}" for name in (*MEANS, "flip_fraction", "flip_first", "agreement")))
VERSION_C = ("c/comprehensiveness_gain", "c/sufficiency_gain")
CONTENT_FREE = ("accuracy", "head_bits", "leaked_bits", "order_free_bits", "mask_only_accuracy", "accuracy_fano_bits")


def page(plan: Plan, results: Results, command: str, discussion: Path) -> str:
    """The whole page; ``discussion`` is appended if it is there."""
    parts = [
        "# The shortcut laboratory",
        "",
        f"Made by `{command}`; each training, with its twin, is a line of `shortcut.jsonl`, which also holds the "
        "figures of its test examples. In the spirit of Bai et al. 2021; data, masks and estimators are ours.",
        "",
        *_progress(plan, results),
        *_settings(plan, results),
        *_goal(plan, results),
        *_content_free(plan, results),
        *_main(plan, results),
        *_further(plan, results),
        *_ablations(plan, results),
    ]
    if discussion.is_file():
        parts += [discussion.read_text()]
    return "\n".join(parts)


def table_of(plan: Plan, data: str, mask: str, results: Results) -> Table:
    """The table of some data and place of the mask."""
    return Table.from_cells(plan.table(data, mask, results), results)


def goals(plan: Plan, results: Results) -> dict[str, tuple[Goal, tuple[str, ...]]]:
    """By data, what holds of the goal, and the rivals that ours was held against."""
    found = {}
    for data in plan.data_sets():
        table = table_of(plan, data, "local", results)
        own = [data] if data in plan.main else None
        chosen = plan.rivals(results, own)
        rivals = tuple(name for name in (chosen["attention dropout"], chosen["TaSc"]) if name in table.rows)
        if table.done:
            found[data] = goal(table.difference, OURS, rivals), rivals
    return found


def _progress(plan: Plan, results: Results) -> list[str]:
    names = ("tuning", "content-free", "all arms", "further data and places", "ablations")
    lines = []
    for number, name in enumerate(names):
        cells = plan.part(number, results)
        missing = [cell for cell in cells if key(cell) not in results]
        if missing:
            lines.append(f"- part {number}, {name}: {len(missing)} of {len(cells)} trainings are missing.")
    return ["**Not complete:**", "", *lines, ""] if lines else []


def _settings(plan: Plan, results: Results) -> list[str]:
    common = plan.sizes[""]
    others = "".join(
        f"{data}: " + ", ".join(f"{name} {value}" for name, value in sizes.items()) + ". "
        for data, sizes in plan.sizes.items()
        if data
    )
    seconds = sum(result.get("seconds", 0.0) for result in results.values())
    return [
        "## Settings",
        "",
        f"BiLSTM keys of {common['hidden']} a direction, word vectors of {common['embedding']} learned from scratch, "
        f"words that occur twice, dropout {DROPOUT}, AdamW ({common['rate']:g}, weight decay {DECAY:g}), batch "
        f"{common['batch']}, {common['epochs']} epochs; hard selection takes {SHARE:.0%} of the positions. {others}"
        f"Seeds: {plan.seeds} in part 1, {plan.few} in part 2, {plan.fewest} of further data in part 3, {plan.single} "
        "at other places of the mask and in part 4; intervals of one seed are over examples alone. "
        "Every arm has the same steps and texts; the epoch with the least validation loss as is, unweighted, is "
        "measured (of its last phase). "
        f"The first {common['explained']} test texts in a random order, the same for all, are perturbed; accuracy and "
        "label information are of the whole test split. `- random`: less the same of random rankings in the same "
        "network.",
        "",
        "Version A is the arm as it is, and tokens are deleted. Version B is the arm and masked fine-tuning, the same "
        "recipe for all, and tokens are replaced, as in training: another network, hence tau(A, B), the agreement of "
        "the two attentions. Version C is one frozen network with masked fine-tuning that judges the rankings of A of "
        "all arms: ranking quality, not faithfulness. A of one arm is never compared with B of another.",
        "",
        "Differences are paired over seeds and test examples; 95 % bootstrap interval over both (each resample draws "
        "seeds, and examples that all seeds share); bold where it leaves out 0, and then the verdict. Of what is "
        "measured on the whole test split, accuracies are compared on all of it, bits on its first 400 examples. "
        "The intervals are not corrected for their number.",
        "",
        "Chosen on validation texts alone, by comprehensiveness less sufficiency of version B, among what is at most a "
        "point below the best validation accuracy: " + _chosen(plan, results),
        "",
        "One encoder pass per step and text for every arm, twice as many where two encoders read (masked input); "
        "`mixed` adds one pass of the head, weighting a small network of the mask. Version B is a second training. "
        "Not measured: RACU and MaSF, measures of Madsen et al. 2024. "
        f"{len(results)} trainings took {seconds / 3600:.1f} hours of one process.",
        "",
    ]


def _chosen(plan: Plan, results: Results) -> str:
    rivals = ", ".join(f"best {kind} {name}" for kind, name in plan.rivals(results).items())
    tuned = []
    for cell in plan.part(0, results):
        setting = plan.setting(cell["arm"], results)
        text = ", ".join(f"{name} {value}" for name, value in setting.items()) or "its default"
        tuned.append(f"{cell['arm']}: {text}")
    return f"{rivals}. " + "; ".join(dict.fromkeys(tuned)) + "."


def _goal(plan: Plan, results: Results) -> list[str]:
    found = goals(plan, results)
    if not found:
        return []
    reached = [data for data, (one, _) in found.items() if one.reached]
    lines, shown = [], []
    for data, (one, rivals) in found.items():
        marks = {None: "not asked", True: "yes", False: "no"}
        held = [marks[value] for value in one.conditions.values()]
        lines.append([data, " and ".join(rivals), *held, "yes" if one.reached else "no"])
        for rival in rivals:
            differences = [judged(one.shown[name, rival], name) for name in (*PERTURBATION, *SHORTCUT)]
            shown.append([data, f"less {rival}", *differences, "", ""])
        shown.append([data, "less none", *[""] * 5, judged(one.auprc, "auprc"), judged(one.accuracy, "accuracy")])
    names = next(iter(found.values()))[0].conditions
    columns = [label(name) for name in (*PERTURBATION, *SHORTCUT, "auprc", "accuracy")]
    return [
        "## The goal",
        "",
        f"Ours, `{OURS}`, is to be better than both the best attention dropout and the best TaSc (best on validation) "
        "on a perturbation metric of version B and on a shortcut metric, better than `none` on AUPRC, and to lose at "
        f"most {100 * ACCURACY_LOSS:.1f} point of accuracy; on three of five data sets. Reached on {len(reached)} of "
        f"{len(found)} looked at: {', '.join(reached) or 'none'}.",
        "",
        markdown_table(["data", "rivals", *names, "reached"], lines),
        f"`{OURS}` less the other; the first three columns are of version B.",
        "",
        markdown_table(["data", "", *columns], shown),
    ]


def _content_free(plan: Plan, results: Results) -> list[str]:
    table = table_of(plan, plan.content_free, "content-free", results)
    if not table.done:
        return []
    expected = []
    for arm, name, bound, sign in (
        ("none", "head_bits", 0.15, 1),
        (PUBLISHED, "head_bits", 0.01, -1),
        (OURS, "head_bits", 0.01, -1),
        (OURS, "leaked_bits", 0.02, -1),
    ):
        values = table.figures(arm, name)
        if values:
            mean = sum(values) / len(values)
            verb = "holds" if sign * (mean - bound) >= 0 else "does not hold"
            relation = "at least" if sign > 0 else "at most"
            expected.append(f"- `{arm}`: {name.replace('_', ' ')} {mean:.3f}, expected {relation} {bound}: {verb}.")
    return [
        f"## 1. Content-free task, {plan.content_free}",
        "",
        "The head sees default tokens alone, so whatever it predicts has travelled in the mask. Head bits: what the "
        "network's own head gets out of it; leaked bits: what a fresh cross-fitted probe does; Fano bits: what the "
        "accuracy implies. Mean ± standard deviation over seeds.",
        "",
        table.means(CONTENT_FREE),
        "![bits against accuracy](shortcut_content_free.png)",
        "",
        *expected,
        "",
        "Less `none`:",
        "",
        table.differences(("accuracy", "head_bits", "leaked_bits")),
    ]


def section(title: str, table: Table) -> list[str]:
    """The tables of some data and place of the mask."""
    if not table.done:
        return []
    return [
        f"### {title}",
        "",
        f"{table.done} of {table.wanted} trainings. Version A:",
        "",
        table.means(VERSION_A),
        "Label information in the mask of A:",
        "",
        table.means(MASK_COLUMNS),
        "Version A less `none`:",
        "",
        table.differences(("accuracy", *FAITHFUL, "auprc", *SHORTCUTS)),
        "Version B, and the judge C:",
        "",
        table.means((*VERSION_B, *VERSION_C)),
        "Versions B and C less those of `none`:",
        "",
        table.differences(("b/accuracy", *(f"b/{name}" for name in FAITHFUL), *VERSION_C)),
    ]


def _local(plan: Plan, data: str, results: Results) -> list[str]:
    found = section(data, table_of(plan, data, "local", results))
    return [*found, f"![differences](shortcut_{_file(data)}.png)", ""] if found else []


def _main(plan: Plan, results: Results) -> list[str]:
    sections = [line for data in plan.main for line in _local(plan, data, results)]
    return ["## 2. All arms, local values", "", *sections] if sections else []


def _further(plan: Plan, results: Results) -> list[str]:
    sections = [line for data in plan.others for line in _local(plan, data, results)]
    for mask in MASKS:
        sections += section(f"{plan.places}, {mask}", table_of(plan, plan.places, mask, results))
    return ["## 3. Further data, and other places of the mask", "", *sections] if sections else []


def _ablations(plan: Plan, results: Results) -> list[str]:
    sections = []
    for title, lines in ABLATIONS.items():
        named = [("none", {}), *lines]
        cells, names = [], []
        for arm, setting in named:
            text = ", ".join(f"{name} {value}" for name, value in setting.items()) or "default"
            for seed in range(plan.single):
                cells.append(plan.cell(plan.places, "local", arm, seed, setting))
                names.append(arm if arm == "none" else f"{arm}: {text}")
        table = Table.from_cells(cells, results, names)
        if any(table.rows[name] for name in table.rows if name != "none"):
            columns = ("accuracy", "b/comprehensiveness_gain", "b/sufficiency_gain", "auprc", *SHORTCUTS[:2])
            sections += [f"### {title}", "", table.means(columns), "Less `none`:", "", table.differences(columns)]
    return [f"## 4. Ablations, {plan.places}, local values", "", *sections] if sections else []


def _file(data: str) -> str:
    return data.lower().replace("+", "_")
