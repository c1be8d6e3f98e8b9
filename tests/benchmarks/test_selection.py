"""The benchmark of selections: its arms, its statistics, one cell of each kind, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.cells import key
from benchmarks.selection.__main__ import main
from benchmarks.selection.arms import ARMS, WHOLE_SHARES, Sizes
from benchmarks.selection.page import write
from benchmarks.selection.plan import COUNTED, FULL, MAIN, QUICK, cell_of
from benchmarks.selection.statistics import compared, failures, holm
from lightning_attn.attention import TopKSelection
from lightning_attn.encoders import BiLSTM
from lightning_attn.networks import SelectorNetwork
from lightning_attn.types import DataSchema
from tests.helpers.toys import VOCABULARY, toy_batch


def made_up(fidelity: list[float], post_hoc: list[float], arm: str = "none") -> dict[str, dict[str, float]]:
    names = ("test/fidelity", "test/post_hoc_accuracy", "test/random_accuracy")
    return {
        key(cell_of("MNIST pairs", arm, seed)): dict(zip(names, (*pair, 0.55), strict=True))
        for seed, pair in enumerate(zip(fidelity, post_hoc, strict=True))
    }


def test_a_failure_is_silent_where_fidelity_is_high() -> None:
    counts = failures(made_up([0.95, 0.95, 0.7, 0.9], [0.6, 0.9, 0.5, 0.65]), "MNIST pairs", "none")
    assert (counts.seeds, counts.silent, counts.noticed) == (4, 2, 1)
    assert counts.low == pytest.approx(stats.beta.ppf(0.025, 2, 3))
    assert counts.high == pytest.approx(stats.beta.ppf(0.975, 3, 2))
    assert failures({}, "MNIST pairs", "none").seeds == 0


def test_differences_are_those_of_a_paired_test_and_corrected_over_the_arms() -> None:
    generator = np.random.default_rng(0)
    base, near, far = (generator.normal(mean, 0.05, 6) for mean in (0.7, 0.72, 0.9))
    results = made_up([1.0] * 6, base.tolist())
    results |= made_up([1.0] * 6, near.tolist(), MAIN[1]) | made_up([1.0] * 6, far.tolist(), MAIN[2])
    found = compared(results, "MNIST pairs", MAIN, "none", "post_hoc_accuracy")
    for arm, values in ((MAIN[1], near), (MAIN[2], far)):
        test = stats.ttest_rel(values, base)
        low, high = test.confidence_interval(0.95)
        assert found[arm].mean == pytest.approx((values - base).mean())
        assert (found[arm].mean - found[arm].half, found[arm].mean + found[arm].half) == pytest.approx((low, high))
    smaller = stats.ttest_rel(far, base).pvalue
    assert found[MAIN[2]].p == pytest.approx(2 * smaller)
    assert str(found[MAIN[2]]).startswith("**+0.")
    assert not str(found[MAIN[1]]).startswith("**")
    few = {name: value for name, value in results.items() if json.loads(name)["seed"] < 4}
    assert not str(compared(few, "MNIST pairs", MAIN, "none", "post_hoc_accuracy")[MAIN[2]]).startswith("**")


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": float("nan")}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": float("nan")}, nan_ok=True
    )


def test_the_plan_has_every_cell_once() -> None:
    cells = [key(cell) for cell in FULL.cells()]
    assert len(cells) == len(set(cells))
    counted = [cell for cell in FULL.cells() if cell["data"] == "MNIST pairs" and cell["arm"] in COUNTED]
    assert len(counted) == 20 * len(COUNTED)
    assert {cell["arm"] for cell in FULL.cells() if cell["data"] == "SST"} >= set(ARMS)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_shows_a_mask_in_each_phase(arm: str) -> None:
    network = SelectorNetwork(BiLSTM(4, 4), BiLSTM(4, 4), TopKSelection(2))
    network.set_mitigation(ARMS[arm].mitigation(Sizes(2, 4, 10, 0)))
    network.build(DataSchema(num_classes=2, vocabulary_size=VOCABULARY)).train()
    sizes = []
    for epoch in range(6):
        rates = network.mitigation.lr_scales(network, epoch)
        shown = network(toy_batch([12] * 64)).attention
        sizes.append((shown > 0).sum(dim=-1).float().mean().item())
        if arm == WHOLE_SHARES:
            assert (0.0 in rates.values()) == (epoch >= 4), "nothing is frozen before the selector learns"
    assert sizes[-1] == 2, "in the end the selection is what the reader sees"
    if arm == WHOLE_SHARES:
        assert sizes[:2] == [12, 12]
        assert all(2 < size < 7 for size in sizes[2:4])


def test_cells_of_a_few_digits_and_their_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    arms = "none;random;gradient x input;greedy"
    options = ["--quick", "--work", str(tmp_path), "--workers", "1", "--arms", arms, "--seeds", "1"]
    main(options)
    lines = (tmp_path / "quick" / "selection.jsonl").read_text().splitlines()
    results = {json.loads(line)["cell"]["arm"]: json.loads(line)["result"] for line in lines}
    assert set(results) == set(arms.split(";"))
    assert 0 < results["none"]["test/fs_accuracy"] <= 1
    assert results["greedy"]["test/post_hoc_accuracy"] >= results["random"]["test/post_hoc_accuracy"]
    assert results["none"]["val/selected_share"] == pytest.approx(4 / 32)
    page = (tmp_path / "quick" / "selection.md").read_text()
    assert "| none | 0 of 1 [" in page or "| none | 1 of 1 [" in page
    assert (tmp_path / "quick" / "selection_lottery.png").stat().st_size > 5000
    main(options)  # finds nothing missing
    assert (tmp_path / "quick" / "selection.jsonl").read_text().splitlines() == lines
    with pytest.raises(SystemExit):
        main(["--quick", "--arms", "nonesuch"])
    assert "There is no arm 'nonesuch'" in capsys.readouterr().err


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    write(QUICK, {}, tmp_path, "COMMAND")
    assert "0 of " in (tmp_path / "selection.md").read_text()
