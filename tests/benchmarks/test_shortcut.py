"""The shortcut laboratory: what it keeps, its intervals and verdicts, its plan, a cell of each kind, and its page."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cells import Cell, finished, key
from benchmarks.difference_figure import draw_differences
from benchmarks.kept import packed, unpacked
from benchmarks.paired import METRICS, Difference, paired
from benchmarks.shortcut import __main__ as command
from benchmarks.shortcut.arms import ARMS, CANDIDATE, DROPOUTS, OURS, PUBLISHED, TASC, mitigation_of, network_of
from benchmarks.shortcut.figures import draw_bits
from benchmarks.shortcut.measure import KEPT, compute
from benchmarks.shortcut.page import goals, page, table_of
from benchmarks.shortcut.plan import FULL, MASKS, QUICK, TUNING_SEED, tried
from benchmarks.shortcut.verdict import PERTURBATION, SHORTCUT, goal
from lightning_attn.mitigations import MaskedFineTuning, Mitigation
from lightning_attn.types import DataSchema

NUMBERS = st.floats(-6e4, 6e4, width=16)


@given(st.lists(st.one_of(NUMBERS, st.just(math.nan)), max_size=50))
def test_what_is_kept_is_nearly_what_it_was(values: list[float]) -> None:
    found = unpacked(packed(np.array(values)))
    np.testing.assert_allclose(found, values, rtol=1 / 512, atol=1e-6)
    json.dumps(packed(np.array(values)))


@given(st.integers(1, 6), st.integers(20, 200), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_interval_is_that_of_seeds_and_examples(seeds: int, examples: int, stream: int) -> None:
    """Where a difference is a part of the seed and a part of the example, the variance of the bootstrap is known."""
    generator = np.random.default_rng(stream)
    of_seed, of_example = generator.normal(0.2, 0.3, (seeds, 1)), generator.normal(0, 1, (1, examples))
    arm = list(of_seed + of_example)
    found = paired(arm, [np.zeros(examples)] * seeds)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(arm))
    error = math.sqrt(of_seed.var() / seeds + of_example.var() / examples)
    # Of few seeds the mean is not normal; no interval of a mean is wider than the seeds are apart.
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.3)


def test_one_seed_gives_the_interval_over_examples() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 400)
    found = paired([values + 5], [np.full(400, 5.0)])
    assert found is not None
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_undefined_examples_are_left_out_of_a_difference() -> None:
    arm, other = [np.array([1.0, np.nan, 3.0])], [np.array([0.0, 0.0, np.nan])]
    assert paired(arm, other) == Difference(1.0, 1.0, 1.0)
    assert paired([np.array([np.nan])], [np.array([1.0])]) is None
    assert paired([], []) is None


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.tuned])
def test_the_default_of_an_arm_is_the_middle_of_what_is_tried(name: str) -> None:
    def parts(setting: dict[str, Any]) -> list[dict[str, Any]]:
        made = ARMS[name].mitigations({"warmup": 1, **setting}, 0)
        return [{key: value for key, value in vars(part).items() if isinstance(value, int | float)} for part in made]

    parameter, values = ARMS[name].tuned or ("", ())
    assert parts({}) == parts({parameter: values[1]})
    assert len({json.dumps(parts({parameter: value})) for value in values}) == 3
    assert [setting.get(parameter, values[1]) for setting in tried(name)] == list(values)


@given(st.integers(0, 10_000), st.sampled_from([-1, 1]))
@settings(deadline=None)
def test_verdicts_turn_round_with_the_arms_and_with_the_direction(stream: int, direction: int) -> None:
    generator = np.random.default_rng(stream)
    shift = generator.normal(0, 0.3)
    one, other = [list(generator.normal(mean, 0.5, (3, 30))) for mean in (shift, 0.0)]
    forth, back = paired(one, other), paired(other, one)
    assert forth is not None
    assert back is not None
    assert forth.low <= forth.mean <= forth.high
    assert (back.mean, back.low, back.high) == pytest.approx((-forth.mean, -forth.high, -forth.low))
    turned = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert back.verdict(direction) == turned[forth.verdict(direction)] == forth.verdict(-direction)
    assert (forth.verdict(direction) == "undecided") == (forth.low <= 0 <= forth.high)
    if forth.verdict(1) == "better":
        assert forth.low > 0


@given(
    better=st.sets(st.sampled_from([(name, rival) for name in (*PERTURBATION, *SHORTCUT) for rival in "ab"])),
    auprc=st.sampled_from([None, -0.1, 0.0, 0.1]),
    lost=st.sampled_from([-0.02, 0.0, 0.0099, 0.0101]),
)
def test_the_goal_needs_every_condition(better: set[tuple[str, str]], auprc: float | None, lost: float) -> None:
    def compare(ours: str, rival: str, name: str) -> Difference | None:
        assert ours == "ours"
        if rival == "none":
            value = auprc if name == "auprc" else -lost
            return None if value is None else Difference(value, value - 0.05, value + 0.05)
        gain = METRICS[name.split("/")[-1]].direction * (1.0 if (name, rival) in better else -1.0)
        return Difference(gain, gain - 0.1, gain + 0.1)

    found = goal(compare, "ours", ["a", "b"])
    perturbed = any({(name, "a"), (name, "b")} <= better for name in PERTURBATION)
    shortcut = any({(name, "a"), (name, "b")} <= better for name in SHORTCUT)
    assert found.conditions == {
        "perturbation metric (B)": perturbed,
        "shortcut metric": shortcut,
        "AUPRC": None if auprc is None else auprc == 0.1,
        "accuracy": lost < 0.01,
    }
    assert found.reached == (perturbed and shortcut and auprc in (None, 0.1) and lost < 0.01)


def test_a_goal_without_measurements_is_not_reached() -> None:
    found = goal(lambda *_: None, "ours", ["a"])
    assert not found.reached
    assert found.conditions["accuracy"] is None


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_makes_a_network_and_its_twin(arm: str) -> None:
    schema = DataSchema(num_classes=2, vocabulary_size=30, default_tokens=4)
    for mask in ("local", "content-free", *MASKS):
        if ARMS[arm].fits(mask):
            network = network_of(QUICK.cell("reviews", mask, arm, 0)).build(schema)
            assert network.attention.hard == (mask == "hard")
            for setting in [{}] if ARMS[arm].tuned is None else tried(arm):
                network.set_mitigation(mitigation_of(arm, {"warmup": 20, **setting}, 0))
    twin = mitigation_of(arm, {"warmup": 20}, 0, masked=True)
    parts: list[Mitigation] = twin.mitigations  # type: ignore[attr-defined]
    assert sum(isinstance(part, MaskedFineTuning) for part in parts) == 1
    assert not ARMS[arm].hard or not ARMS[arm].fits("local")


def made_up(cell: Cell) -> dict[str, Any]:
    """What a cell might give: the better, the later its arm stands in the table."""
    place = list(ARMS).index(cell["arm"])
    generator = np.random.default_rng([place, cell["seed"]])
    count = 50
    signs = {name: metric.direction for name, metric in METRICS.items()}
    versions = [name for name in METRICS if name not in ("accuracy", "auprc", "head_bits", "leaked_bits")]
    rows = {
        name: signs[name.split("/")[-1]] * (place / 20 + generator.normal(0, 0.01, count))
        for name in (*METRICS, *(f"b/{name}" for name in versions), "b/accuracy", "c/comprehensiveness_gain")
    }
    figures = {name: float(values.mean()) for name, values in rows.items()}
    figures |= {"val/comprehensiveness_gain": place / 10, "val/sufficiency_gain": 0.0, "val/accuracy": 0.8}
    return {"figures": figures, "rows": {name: packed(values) for name, values in rows.items()}, "seconds": 1.0}


def results_of(cells: list[Cell]) -> dict[str, dict[str, Any]]:
    return {key(cell): made_up(cell) for cell in cells}


def test_no_cell_is_planned_twice_and_tuning_looks_at_no_test_text() -> None:
    for plan in (FULL, QUICK):
        for number in range(5):
            cells = plan.part(number, {})
            keys = [key(cell) for cell in cells]
            assert number == 4 or len(set(keys)) == len(keys)  # ablations share the arms they vary
            assert cells
        assert all(cell["explained"] == 0 and cell["seed"] == TUNING_SEED for cell in plan.part(0, {}))
    assert len(FULL.part(2, {})) == 2 * FULL.few * (len(ARMS) - 1)
    assert all("REAL-X" not in cell["arm"] for cell in FULL.part(2, {}))
    assert any(cell["arm"] == "REAL-X" for cell in FULL.part(3, {}) if cell["mask"] == "hard")


def test_validation_chooses_settings_and_rivals() -> None:
    cells = FULL.part(0, {})
    results = results_of(cells)
    of_mixing = [cell for cell in cells if cell["arm"] == "mixed"]
    results[key(of_mixing[0])]["figures"] |= {"val/comprehensiveness_gain": 9.0, "val/accuracy": 0.78}  # not accurate
    results[key(of_mixing[2])]["figures"] |= {"val/comprehensiveness_gain": 5.0, "val/accuracy": 0.795}
    assert FULL.setting("mixed", results) == {"share": 0.7}
    part = {name: value for name, value in results.items() if name != key(of_mixing[1])}
    assert FULL.setting("mixed", part) == {}, "until tuning is complete"
    assert FULL.setting("none", results) == {}

    results |= results_of(FULL.part(2, results))
    chosen = FULL.rivals(results)
    assert chosen["attention dropout"] == DROPOUTS[-1]
    assert chosen["TaSc"] == TASC[-1]
    for cell in FULL.part(2, results):
        if cell["arm"] == DROPOUTS[0]:
            results[key(cell)]["figures"]["val/comprehensiveness_gain"] = 7.0
        if cell["arm"] == DROPOUTS[1]:  # test figures choose nothing
            results[key(cell)]["figures"]["b/comprehensiveness_gain"] = 7.0
    assert FULL.rivals(results)["attention dropout"] == DROPOUTS[0]
    assert set(FULL.arms("IMDB", "local", results)) == {"none", DROPOUTS[0], TASC[-1], PUBLISHED, OURS, CANDIDATE}


def test_the_page_grows_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "discussion.md").write_text("## What it shows")
    empty = page(FULL, {}, "COMMAND", tmp_path / "none.md")
    assert "Made by `COMMAND`" in empty
    assert empty.count("trainings are missing") == 5
    assert "## 1." not in empty

    results: dict[str, dict[str, Any]] = {}
    for number in range(5):
        cells = FULL.part(number, results)
        results |= results_of(cells[: len(cells) // 2])
        text = page(FULL, results, "COMMAND", tmp_path / "discussion.md")
        results |= results_of(FULL.part(number, results))
        done = page(FULL, results, "COMMAND", tmp_path / "discussion.md")
        assert done.count("trainings are missing") < text.count("trainings are missing")
    assert "Not complete" not in done
    assert done.endswith("## What it shows")
    for heading in (
        "## 1.",
        "### SST+Wiki, hard",
        "### movies",
        "### IMDB",
        "### patches",
        "## 4.",
        "### share of mixing",
    ):
        assert heading in done
    assert "REAL-X" in done
    assert "nan" not in done
    # By what was made up, ours stands behind every rival in the table, and is better by as much.
    for data, (one, rivals) in goals(FULL, results).items():
        assert rivals == ((DROPOUTS[-1],) if data == "patches" else (DROPOUTS[-1], TASC[-1]))
        assert one.reached
    assert set(FULL.arms("patches", "local", results)) == {
        "none",
        DROPOUTS[-1],
        "masked fine-tuning",
        PUBLISHED,
        OURS,
        CANDIDATE,
    }
    table = table_of(FULL, "SST", "local", results)
    assert "REAL-X" not in table.rows
    difference = table.difference(OURS, "none", "leaked_bits")
    assert difference is not None
    assert difference.mean == pytest.approx(-list(ARMS).index(OURS) / 20, abs=0.01)
    assert len(draw_differences(table, ("accuracy", "b/comprehensiveness_gain")).axes) == 2
    assert len(draw_bits(table_of(FULL, "SST", "content-free", results)).axes[0].collections) == len(ARMS) - 5


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """What a cell sets for the process it runs in, threads, warnings and the loudness of Lightning, is put back."""
    threads, lightning = torch.get_num_threads(), logging.getLogger("pytorch_lightning")
    level = lightning.level
    with warnings.catch_warnings():
        yield
    lightning.setLevel(level)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("as_it_was")
def test_without_content_a_head_gets_bits_and_fewer_of_the_published_pair(tmp_path: Path) -> None:
    found = {
        arm: compute(QUICK.cell("reviews", "content-free", arm, 0), "", str(tmp_path)) for arm in ("none", PUBLISHED)
    }
    none, both = found["none"]["figures"], found[PUBLISHED]["figures"]
    assert none["head_bits"] > 0.5
    assert both["head_bits"] < 0.5 * none["head_bits"]
    assert none["accuracy_fano_bits"] <= none["leaked_bits"] + 0.2
    assert set(found["none"]["rows"]) == {"accuracy", "head_bits", "leaked_bits"}
    for name in found["none"]["rows"]:
        kept = unpacked(found["none"]["rows"][name])
        assert len(kept) == 80 <= KEPT
        assert kept.mean() == pytest.approx(none[name], abs=2e-3)


@pytest.mark.usefixtures("as_it_was")
def test_a_cell_holds_all_versions(tmp_path: Path) -> None:
    cell = QUICK.cell("reviews+noise", "hard", "REAL-X", 1) | {"epochs": 3, "explained": 10}
    found = compute(cell, "", str(tmp_path))
    judge = next(tmp_path.glob("judge-*.pt"))
    written = judge.stat().st_mtime_ns
    figures, rows = found["figures"], {name: unpacked(text) for name, text in found["rows"].items()}
    measured = {"kendall_gradient", "kendall_loo", "comprehensiveness_gain", "sufficiency_gain", "flip_fraction"}
    for name in measured:
        assert len(rows[name]) == len(rows[f"b/{name}"]) == 10
    assert {"auprc", "leaked_bits", "encoding_gain", "evalx_accuracy", "accuracy", "b/accuracy"} <= set(rows)
    assert {"c/comprehensiveness_gain", "c/sufficiency_gain", "b/flip_fraction_gain"} <= set(rows)
    assert {"post_hoc_accuracy", "evalx_random_accuracy", "b/agreement", "val/accuracy"} <= set(figures)
    assert set(rows["accuracy"]) <= {0.0, 1.0}
    assert figures["accuracy"] == pytest.approx(rows["accuracy"].mean(), abs=1e-5)
    gain = figures["encoding_bits"] - figures["encoding_bits_control"]
    assert figures["encoding_gain"] == pytest.approx(gain, abs=1e-4)
    assert json.loads(json.dumps(compute(cell, "", str(tmp_path)))) == found, "the same again, from the judge kept"
    assert judge.stat().st_mtime_ns == written


@pytest.mark.usefixtures("as_it_was")
def test_a_piece_is_run_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[Cell] = []

    def in_process(cells: list[Cell], function: Any, path: Path, workers: int) -> None:
        assert isinstance(function, partial)
        path.parent.mkdir(parents=True, exist_ok=True)
        for cell in cells:
            if key(cell) not in finished(path):
                computed.append(cell)
                with path.open("a") as file:
                    file.write(json.dumps({"cell": cell, "result": made_up(cell)}) + "\n")

    monkeypatch.setattr(command, "run_cells", in_process)
    piece = ["--quick", "--work", str(tmp_path), "--parts", "1,2", "--arms", "none,mixed", "--seeds", "1"]
    command.main(piece)
    assert {(cell["mask"], cell["arm"], cell["seed"]) for cell in computed} == {
        (mask, arm, 0) for mask in ("content-free", "local") for arm in ("none", "mixed")
    }
    written = tmp_path / "quick"
    assert {path.name for path in written.iterdir()} == {
        "shortcut.jsonl",
        "shortcut.md",
        "shortcut_content_free.png",
        "shortcut_reviews_noise.png",
    }
    before = len(computed)
    command.main([*piece[:-1], "2"])
    assert {cell["seed"] for cell in computed[before:]} == {1}
    assert "Not complete" in (written / "shortcut.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quick", "--output", str(command.RESULTS)], "does not write into results"),
        (["--quick", "--parts", "7"], "no part 7"),
        (["--quick", "--arms", "nun"], "no arm 'nun'"),
        ([], "--data is needed"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIGHTNING_ATTN_DATA", raising=False)
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err
