"""Silent failures: what counts as one, their rate, where figures are read, and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_attn.cli.commands import main
from lightning_attn.errors import InputError
from lightning_attn.visualization.silent_failures import (
    FailureRate,
    Thresholds,
    Training,
    failure_rate,
    groups,
    read_trainings,
)
from lightning_attn.visualization.silent_failures_page import page, scatter

LIMITS = Thresholds()


def training(prediction: float, attention: float, **more: float | str) -> Training:
    return Training("a", prediction, attention, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (training(1, 0.70), None),
        (training(1, 0.69), "partial"),
        (training(1, 0.49, effective=1.0), "inverted"),
        (training(1, 0.6, effective=1.4), "collapsed"),
        (training(1, 0.6, effective=3.0, key_mass=0.1, key_rate=0.2), "collapsed"),
        (training(1, 0.6, effective=3.0, key_mass=0.3, key_rate=0.2), "partial"),
        (training(1, 0.6, key_mass=0.1), "partial"),
    ],
)
def test_kinds(found: Training, kind: str | None) -> None:
    assert found.kind(LIMITS) == kind


def test_silent_takes_good_predictions_and_wrong_attention() -> None:
    assert training(0.95, 0.699).silent(LIMITS)
    assert not training(0.949, 0.1).silent(LIMITS)
    assert not training(1.0, 0.7).silent(LIMITS)


def test_the_rate_is_among_the_good_ones() -> None:
    some = [training(0.99, 0.3), training(0.97, 0.6), training(0.96, 0.9), training(0.9, 0.1), training(1.0, 0.99)]
    rate = failure_rate(some, LIMITS)
    assert (rate.trainings, rate.good, rate.silent, rate.share) == (5, 4, 2, 0.5)
    assert rate.kinds == {"inverted": 1, "collapsed": 0, "partial": 1}


@given(st.integers(1, 60), st.data())
def test_the_interval_is_wilsons(good: int, data: st.DataObject) -> None:
    silent = data.draw(st.integers(0, good))
    rate = failure_rate([training(1, 0.1)] * silent + [training(1, 1)] * (good - silent), LIMITS)
    z, p = stats.norm.ppf(0.975), silent / good
    centre = (p + z * z / (2 * good)) / (1 + z * z / good)
    half = z / (1 + z * z / good) * math.sqrt(p * (1 - p) / good + z * z / (4 * good * good))
    assert (rate.low, rate.high) == pytest.approx((max(centre - half, 0), min(centre + half, 1)), abs=1e-9)


def test_without_good_predictions_there_is_no_rate() -> None:
    rate = failure_rate([training(0.5, 0.1)], LIMITS)
    assert isinstance(rate, FailureRate)
    assert math.isnan(rate.share)
    assert math.isnan(rate.low)


def test_groups_stand_in_the_order_of_their_size() -> None:
    names = ["ensemble of 10", "single", "ensemble of 2"]
    assert list(groups([training(1, 1, group=name) for name in names])) == ["single", "ensemble of 2", "ensemble of 10"]


def write_run(folder: Path, rows: list[dict[str, float]], best: int | None = None, members: int = 0) -> Path:
    folder.mkdir(parents=True)
    names = sorted({name for row in rows for name in row})
    lines = [",".join(["epoch", "step", *names])]
    lines += [
        ",".join([str(epoch), "0", *(str(row.get(name, "")) for name in names)]) for epoch, row in enumerate(rows)
    ]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if best is not None:
        (folder / "checkpoints").mkdir()
        torch.save({"epoch": best}, folder / "checkpoints" / "best.ckpt")
    network = {"class_path": "PooledNetwork"}
    if members:
        network = {"class_path": "x.AttentionEnsemble", "init_args": {"members": [network] * members}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"network": network}}}))
    return folder


def figures(prediction: float, attention: float, split: str = "val") -> dict[str, float]:
    return {
        f"{split}/auroc": prediction,
        f"{split}/instances/auroc": attention,
        f"{split}/instances/key_mass": 0.25,
        f"{split}/instances/key_rate": 0.125,
        f"{split}/instances/effective_instances": 4.0,
    }


def test_a_fit_counts_with_the_epoch_of_its_best_checkpoint(tmp_path: Path) -> None:
    rows = [figures(0.5, 0.4), figures(0.97, 0.6), figures(0.8, 0.9)]
    (found,) = read_trainings(write_run(tmp_path / "run", rows, best=1))
    assert found == Training("run", 0.97, 0.6, 0.25, 0.125, 4.0, "single")


def test_a_test_run_of_an_ensemble_is_one_of_its_size(tmp_path: Path) -> None:
    (found,) = read_trainings(write_run(tmp_path / "run", [figures(0.9, 0.8, "test")], members=5))
    assert (found.prediction, found.attention, found.group) == (0.9, 0.8, "ensemble of 5")


def test_an_ensembles_folder_gives_its_members(tmp_path: Path) -> None:
    members = [{"metrics": figures(0.9, 0.2)}, {"metrics": {**figures(0.8, 0.3), "val/instances/key_mass": None}}]
    (tmp_path / "ensemble.json").write_text(json.dumps({"members": members}))
    found = read_trainings(tmp_path)
    assert [(one.prediction, one.attention, one.key_mass) for one in found] == [(0.9, 0.2, 0.25), (0.8, 0.3, None)]
    (tmp_path / "ensemble.json").write_text('{"seed": 0}')
    with pytest.raises(InputError, match="has not been trained to its end"):
        read_trainings(tmp_path)


def test_texts_and_names_of_ones_own(tmp_path: Path) -> None:
    row = {"val/accuracy": 0.8, "val/auroc": 0.9, "val/plausibility/auroc": 0.7}
    folder = write_run(tmp_path / "run", [row])
    assert read_trainings(folder)[0].attention == 0.7
    assert read_trainings(folder, "val/accuracy")[0].prediction == 0.8
    with pytest.raises(InputError, match="has no val/instances/ndcg; logged were val/auroc, val/plausibility/auroc"):
        read_trainings(folder, attention="val/instances/ndcg")


def test_the_command_prints_the_table_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        write_run(tmp_path / "<b>silent", [figures(0.99, 0.55)]),
        write_run(tmp_path / "fine", [figures(0.99, 0.95)]),
        write_run(tmp_path / "three", [figures(0.98, 0.97)], members=3),
    ]
    target = tmp_path / "page.html"
    assert main(["silent-failures", *map(str, folders), "--output", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "P(silent | good) │ 0.50 [0.09, 0.91]" in " ".join(shown.split())
    assert "ensemble of 3" in shown
    text = target.read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;silent" in text
    assert "partial, silent" in text
    assert "data:image/png;base64," in text
    assert "http" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "is not the folder of a run"),
        (["{run}", "--good=2"], "--good must be from 0 to 1, not 2"),
        (["{run}", "--output={run}"], "is a folder"),
        ([], "the following arguments are required: runs"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    run = write_run(tmp_path / "run", [figures(0.99, 0.55)])
    assert main(["silent-failures", *(option.format(run=run) for option in options)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_the_figure_shades_the_corner_and_shows_every_training() -> None:
    some = [training(0.99, 0.3), training(0.7, 0.9), training(0.98, 0.9, group="ensemble of 5")]
    (axes,) = scatter(some, LIMITS).axes
    corner = axes.patches[0]
    assert (corner.get_x(), corner.get_y() + corner.get_height()) == pytest.approx((0.95, 0.70))
    drawn = [tuple(point) for line in axes.lines[:2] for point in line.get_xydata()]
    assert drawn == [(0.99, 0.3), (0.7, 0.9), (0.98, 0.9)]
    assert "</table>" in page(some, LIMITS)
