"""The evidence on transformers: its plan, a resumed --quick, its measures against plain ones, its verdicts and page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.cells import Cell, append, finished, key
from benchmarks.fitting import fit_best
from benchmarks.kept import packed, unpacked
from benchmarks.measuring import order_at, order_of
from benchmarks.tables import Table
from benchmarks.transformers import __main__ as command
from benchmarks.transformers.data import Limited, data_of
from benchmarks.transformers.measure import ERASED, compute, explained_batches, faithful, method_of
from benchmarks.transformers.methods import METHODS
from benchmarks.transformers.page import columns_of, compared, page, tally
from benchmarks.transformers.plan import (
    ALL_HEADS,
    CLASSIFIER,
    FULL,
    HEADS,
    MITIGATIONS,
    QUICK,
    TUNING,
    VARIANTS,
    drawn,
    masked,
)
from benchmarks.transformers.tiny import write_tiny
from benchmarks.transformers.training import _tuned, module_of, tuned
from lightning_attn.attribution import Attribution
from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.metrics import Settings, measure
from lightning_attn.metrics.presets import PRESETS
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch
from tests.helpers.tiny_models import toy_transformer
from tests.helpers.toys import toy_batch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of data and model."""
    data, model = write_tiny(tmp_path_factory.mktemp("tiny"))
    return str(data), str(model)


@pytest.mark.parametrize("plan", [FULL, QUICK])
def test_no_cell_is_planned_twice_and_every_row_of_the_page_is_planned(plan: Any) -> None:
    cells = [cell for number in range(4) for lot in plan.stages(number) for cell in lot]
    keys = [key(cell) for cell in cells]
    assert len(set(keys)) == len(keys)
    planned = {(cell["task"], cell["kind"], cell["arm"]) for cell in cells}
    for task in plan.tasks:
        assert {(task, TUNING, TUNING), (task, HEADS, HEADS)} <= planned
        for variant in VARIANTS:
            assert (task, "method", ALL_HEADS[variant]) in planned
            for selection in plan.selections:
                assert {(task, "method", name(variant, selection)) for name in (masked, drawn)} <= planned
    assert {cell["arm"] for cell in plan.table(3, plan.mitigated[0])} == set(plan.mitigations)
    assert plan.table(3, "QA") == []
    json.dumps(cells)


def test_the_whole_evidence_has_every_method_and_mitigation() -> None:
    assert set(FULL.methods) == set(METHODS)
    assert set(FULL.mitigations) == set(MITIGATIONS)
    assert FULL.draws >= 3
    assert FULL.seeds == 3


def test_a_killed_quick_run_goes_on_and_its_page_has_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    killed_after = 9

    def in_process(cells: list[Cell], function: Any, path: Path, workers: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for cell in cells:
            if key(cell) in finished(path):
                continue
            if len(computed) == killed_after:
                with path.open("a") as file:
                    file.write('{"cell": {"ta')  # the line that was being written
                raise KeyboardInterrupt
            computed.append(key(cell))
            append(path, cell, function(cell) | {"seconds": 1.0})

    monkeypatch.setattr(command, "run_cells", in_process)
    arguments = ["--quick", "--work", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        command.main(arguments)
    written = tmp_path / "quick"
    partial = (written / "transformers.md").read_text()
    assert "part 1, every method: " in partial
    assert "## 0. Models" in partial
    assert "## 2." not in partial
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")}
    assert len(kept) == 4

    killed_after = -1
    command.main(arguments)
    assert len(set(computed)) == len(computed), "no cell twice"
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")} == kept, "trained once"
    text = (written / "transformers.md").read_text()
    assert "Not complete" not in text
    assert "nan" not in text
    for heading in (
        "## 0. Models",
        "Chosen attention heads of each layer",
        *(f"### {task}\n" for task in QUICK.tasks),
        "Preset `ours`:",
        "Preset `mask_lrp`:",
        "Recall of the answer among the 20",
        "## 2. Does masking",
        *(f"{task}, {variant}, `important` attention heads:" for task in QUICK.tasks for variant in VARIANTS),
        "## 3. Mitigated self-attention, SST",
    ):
        assert heading in text, heading
    for row in (*QUICK.methods, *QUICK.mitigations):
        assert f"\n| {row} | " in text
    pictures = {f"transformers_{task.lower()}.png" for task in QUICK.tasks}
    assert {path.name for path in written.iterdir()} == {"transformers.jsonl", "transformers.md", *pictures}


@pytest.mark.parametrize("task", ["NLI", "QA"])
def test_every_method_is_measured(task: str, tiny: tuple[str, str], tmp_path: Path) -> None:
    place = (*tiny, str(tmp_path))
    for name in METHODS:
        cell = QUICK.cell(task, name) | {"explained": 3, "epochs": 1}
        found = compute(cell, *place)
        assert set(found["rows"]) >= set(columns_of(task))
        for column in columns_of(task):
            values = unpacked(found["rows"][column])
            assert len(values) == 3
            if not np.isnan(values).all():
                assert np.nanmean(values) == pytest.approx(found["figures"][column], abs=2e-3, rel=1e-2)
    if task == "QA":
        assert 0 <= found["figures"]["pooled_recall"] <= 1


def test_a_mitigated_classifier_is_measured(tiny: tuple[str, str], tmp_path: Path) -> None:
    cell = QUICK.cell("SST", "both", kind=CLASSIFIER) | {"explained": 4, "epochs": 2, "train": 64}
    found = compute(cell, *tiny, str(tmp_path))
    assert {"accuracy", "kendall_gradient", "comprehensiveness_gain", "sufficiency_gain", "leaked_bits"} <= set(
        found["rows"]
    )
    assert len(unpacked(found["rows"]["accuracy"])) == 40
    assert len(unpacked(found["rows"]["sufficiency_gain"])) == 4


def test_the_arms_of_mask_lrp_have_their_attention_heads(tiny: tuple[str, str], tmp_path: Path) -> None:
    place = (*tiny, str(tmp_path))
    cell = QUICK.cell("NLI", masked("clean")) | {"epochs": 1}
    chosen = method_of(cell, *place).rule.heads  # type: ignore[attr-defined]
    assert any(chosen)
    both = method_of(cell | {"arm": masked("released")}, *place)
    assert both.rule.heads == chosen  # type: ignore[attr-defined]
    random = [
        method_of(cell | {"arm": drawn("clean"), "seed": seed}, *place).rule.heads  # type: ignore[attr-defined]
        for seed in range(4)
    ]
    assert all([len(layer) for layer in one] == [len(layer) for layer in chosen] for one in random)
    every = method_of(cell | {"arm": ALL_HEADS["released"]}, *place).rule.heads  # type: ignore[attr-defined]
    assert every == [[0, 1, 2, 3]] * 3


class OfClass(Attribution):
    """Scores that depend on the explained class, and say which were asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        assert target is not None
        self.asked.append(target.tolist())
        generator = torch.arange(batch.inputs.shape[1]) + batch.inputs * (1 + 2 * target[:, None])
        return (generator * 37 % 101).float()


def test_each_preset_measures_explanations_of_the_class_it_watches() -> None:
    network = toy_transformer(seed=3)
    batch = toy_batch([24, 31, 22, 28, 26], special=True, evidence=True)
    predicted = network(batch).logits.argmax(dim=-1)
    batch = batch.replace(target=torch.where(torch.arange(5) < 2, 1 - predicted, predicted))
    method = OfClass()
    found = faithful(network, method, batch)
    assert method.asked == [predicted.tolist(), batch.target[:2].tolist()]
    for preset, target in (("ours", predicted), ("mask_lrp", batch.target)):
        scores = torch.stack([OfClass().attribute(network, batch, target)[row] for row in range(5)])
        names = [f"faithfulness/{name}" for name in ERASED[preset]]
        wanted, _ = measure(network, batch, names, Settings(PRESETS[preset]), scores)
        for name in names:
            torch.testing.assert_close(found[f"{preset}/{name.split('/')[1]}"], wanted[name])
    whole, _ = measure(network, batch, ("faithfulness/comprehensiveness",), Settings(PRESETS["mask_lrp"]), scores)
    torch.testing.assert_close(found["mask_lrp/aopc"], whole["faithfulness/comprehensiveness"])
    assert set(found) == {"auprc", *(f"{preset}/{name}" for preset, names in ERASED.items() for name in names)}


def test_questions_are_explained_in_the_window_with_their_answer(tiny: tuple[str, str], tmp_path: Path) -> None:
    cell = QUICK.cell("QA", TUNING, kind=TUNING) | {"length": 20}
    data = data_of(cell, *tiny, str(tmp_path))
    batches = explained_batches(data, 100, 3)
    dataset = data.dataset("test")
    rows = torch.cat([batch.index for batch in batches]).tolist()
    assert len(dataset) > len(dataset.questions) > 0  # type: ignore[attr-defined]
    owners = [int(dataset.owner[row]) for row in rows]  # type: ignore[attr-defined]
    assert len(set(owners)) == len(owners), "one window per question"
    for batch in batches:
        assert batch.evidence is not None
        assert ((batch.evidence == 1).sum(dim=1) > 0).all()


def test_a_part_of_a_split_is_numbered_anew() -> None:
    whole = SyntheticReviewsDataModule(30, 10, 10)
    data = Limited(whole, 4, 0, {"train": 7, "val": None})
    part = data.dataset("train")
    assert len(part) == len(part.lengths) == 7
    assert len(data.dataset("val")) == len(data.dataset("test")) == 10
    rows = order_at(30)[:7]
    batch, same = part[[5, 2]], whole.dataset("train")[rows[[5, 2]].tolist()]
    assert batch.index.tolist() == [5, 2]
    assert torch.equal(batch.inputs, same.inputs)
    assert batch.valid.sum(dim=1).tolist() == part.lengths[[5, 2]].tolist()
    assert sorted(order_of(data, "train").tolist()) == list(range(7))


def test_training_that_was_killed_goes_on(tiny: tuple[str, str], tmp_path: Path) -> None:
    cell = QUICK.cell("SST", TUNING, kind=TUNING) | {"train": 48, "val": 16}

    def epochs_of(count: int) -> list[int]:
        done: list[int] = []
        module = module_of(cell, tiny[1])
        module.on_train_epoch_start = lambda: done.append(module.current_epoch)  # type: ignore[method-assign]
        fit_best(module, data_of(cell, *tiny, str(tmp_path)), count, tmp_path / "fit", 1.0)
        best = sorted((tmp_path / "fit").glob("**/best.ckpt"), key=lambda path: path.stat().st_mtime)[-1]
        stored = torch.load(best, weights_only=True)["state_dict"]
        assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())
        return done

    assert epochs_of(1) == [0]
    assert epochs_of(3) == [1, 2]
    assert epochs_of(3) == []


def test_a_model_is_trained_once_and_kept(tiny: tuple[str, str], tmp_path: Path) -> None:
    cell = QUICK.cell("SST", "random") | {"train": 48, "val": 16, "epochs": 1}
    first, _ = tuned(cell, *tiny, str(tmp_path))
    (file,) = tmp_path.glob("SST-*")
    assert file.suffix == ".safetensors"
    _tuned.cache_clear()
    second, _ = tuned(cell, *tiny, str(tmp_path))
    assert first is not second
    for name, value in first.state_dict().items():
        assert torch.equal(value.cpu(), second.state_dict()[name].cpu())
    assert not second.training


def made_up(cell: Cell, shift: float) -> dict[str, Any]:
    """A row of 60 texts; texts differ more than arms do, so that only pairing shows the difference."""
    texts = np.random.default_rng(0).normal(0, 5, 60)
    noise = np.random.default_rng([len(cell["arm"]), cell["seed"]]).normal(0, 0.05, 60)
    rows = {name: packed(texts + noise + shift) for name in columns_of(cell["task"])}
    return {"figures": dict.fromkeys(rows, shift), "rows": rows, "seconds": 60.0}


def test_chosen_attention_heads_are_held_against_all_and_against_every_draw() -> None:
    results = {}
    for cell in [*FULL.table(1, "NLI"), *FULL.table(2, "NLI")]:
        arm = cell["arm"]
        # In `clean` the wider choice is as good as all, and better than random ones by 0.3.
        shift = 0.0 if "random for" not in arm else -0.3 - 0.01 * cell["seed"]
        results[key(cell)] = made_up(cell, shift)
    table = compared(FULL, results, "NLI", "clean", "wider")
    random = table.difference("chosen", "random", "ours/aopc")
    same = table.difference("chosen", "all", "ours/aopc")
    assert random is not None
    assert same is not None
    assert random.mean == pytest.approx(0.32, abs=0.03)
    assert random.verdict(1) == "better"
    assert random.verdict(-1) == "worse"
    assert same.verdict(1) == "undecided"
    text = page(FULL, results, "COMMAND", Path("none.md"))
    lower = sum(name.endswith(("sufficiency", "log_odds")) for name in columns_of("NLI"))
    higher = len(columns_of("NLI")) - lower
    (line,) = [line for line in text.splitlines() if line.startswith("| clean, `wider` |")]
    assert f"{higher} better, {lower} worse" in line.split("|")[3]
    assert tally([]) == "none yet"

    missing = {name: value for name, value in results.items() if json.loads(name)["seed"] != 4}
    fewer = compared(FULL, missing, "NLI", "clean", "wider").difference("chosen", "random", "ours/aopc")
    assert fewer is not None
    assert fewer.mean == pytest.approx(0.315, abs=0.03)
    del missing[key(FULL.cell("NLI", masked("clean", "wider")))]
    assert compared(FULL, missing, "NLI", "clean", "wider").difference("chosen", "random", "ours/aopc") is None


def test_an_interval_is_that_of_the_mean_over_texts() -> None:
    values = np.random.default_rng(1).normal(0.4, 0.2, 300)
    cell = FULL.cell("NLI", "random")
    result = {"figures": {}, "rows": {"ours/aopc": packed(values)}}
    text = Table.from_cells([cell], {key(cell): result}).intervals(("ours/aopc", "auprc"))
    mean, low, high = (float(part.strip("[], ")) for part in text.splitlines()[-1].split("|")[2].split())
    half = 1.96 * values.std() / 300**0.5
    assert (mean, low, high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half), abs=0.2 * half
    )
    assert text.splitlines()[-1].endswith("| - |")


def test_an_empty_page_says_what_is_missing() -> None:
    text = page(FULL, {}, "COMMAND", Path("none.md"))
    assert text.count("cells are missing") == 4
    assert "## 1." not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quick", "--output", str(command.RESULTS)], "does not write into results"),
        (["--quick", "--parts", "7"], "no part 7"),
        (["--data", "x"], "--minilm is needed"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err
