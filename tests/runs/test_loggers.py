from __future__ import annotations

import csv
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import wandb
from pytorch_lightning.loggers import WandbLogger

from lightning_attn.errors import InputError
from lightning_attn.runs.loggers import (
    MetricsFile,
    finish_wandb,
    guard,
    start_wandb_loggers,
    use_epoch_axis,
    wandb_mode,
)
from tests.helpers.loggers import Broken, Refusing


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_logged_at_one_step_shares_a_row(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"val/loss": 0.5, "epoch": 0}, 9)
    assert rows(tmp_path) == [{"epoch": "0", "step": "9", "val/loss": "0.5"}]
    logger.log_metrics({"train/loss": 0.25, "epoch": 0}, 9)
    logger.log_metrics({"val/loss": 0.4, "epoch": 1}, 19)
    assert rows(tmp_path) == [
        {"epoch": "0", "step": "9", "val/loss": "0.5", "train/loss": "0.25"},
        {"epoch": "1", "step": "19", "val/loss": "0.4", "train/loss": ""},
    ]


def test_a_column_may_come_late(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    for epoch in range(3):
        logger.log_metrics({"val/loss": epoch / 4, "epoch": epoch}, epoch)
        if epoch == 2:
            logger.log_metrics({"mitigation/weight_max": 7.0, "epoch": epoch}, epoch)
    assert [row["mitigation/weight_max"] for row in rows(tmp_path)] == ["", "", "7.0"]
    assert [row["val/loss"] for row in rows(tmp_path)] == ["0.0", "0.25", "0.5"]


def test_an_undefined_figure_is_left_empty_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = MetricsFile(tmp_path)
    with caplog.at_level("INFO"):
        for epoch in range(2):
            logger.log_metrics({"val/auroc": float("nan"), "val/loss": 0.5, "epoch": epoch}, epoch)
    assert [row["val/auroc"] for row in rows(tmp_path)] == ["", ""]
    assert [record.message for record in caplog.records if "val/auroc is undefined" in record.message] == [
        "val/auroc is undefined for these examples, and is left empty in metrics.csv."
    ]


def test_the_same_figure_twice_is_two_rows(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_metrics({"loss": 2.0}, 1)
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0", "2.0"]


def test_what_a_full_disk_refused_is_written_when_it_can_be(tmp_path: Path) -> None:
    logger = guard(MetricsFile(tmp_path))
    logger.log_metrics({"loss": 1.0, "epoch": 0}, 0)
    (tmp_path / "metrics.csv").rename(tmp_path / "away")
    (tmp_path / "metrics.csv").mkdir()
    with pytest.warns(UserWarning, match="MetricsFile failed"):
        logger.log_metrics({"loss": 2.0, "epoch": 1}, 1)
    logger.log_metrics({"loss": 3.0, "epoch": 2}, 2)
    (tmp_path / "metrics.csv").rmdir()
    (tmp_path / "away").rename(tmp_path / "metrics.csv")
    logger.log_metrics({"loss": 4.0, "epoch": 3}, 3)
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0", "2.0", "3.0", "4.0"]


def test_a_logger_that_fails_is_mentioned_once(tmp_path: Path) -> None:
    logger = guard(Broken(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger.log_metrics({"loss": 1.0}, 0)
        logger.log_metrics({"loss": 1.0}, 1)
    assert [str(warning.message) for warning in caught] == [
        "Broken failed and may miss figures; the training goes on: the service is gone"
    ]


def test_a_logger_that_works_is_left_as_it_is(tmp_path: Path) -> None:
    logger = guard(MetricsFile(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.log_metrics({"loss": 1.0}, 0)
    assert isinstance(logger, MetricsFile)
    assert logger.save_dir == str(tmp_path)


def test_a_guarded_logger_goes_to_another_process(tmp_path: Path) -> None:
    logger = guard(MetricsFile(tmp_path))
    logger.log_metrics({"loss": 1.0}, 0)
    other = pickle.loads(pickle.dumps(logger))
    other.log_metrics({"loss": 2.0}, 1)
    assert isinstance(other, MetricsFile)
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0", "2.0"]
    with pytest.warns(UserWarning, match="Broken failed"):
        pickle.loads(pickle.dumps(guard(Broken(tmp_path)))).log_metrics({"loss": 1.0}, 0)


@pytest.mark.parametrize(
    ("chosen", "environment", "mode"),
    [
        (None, None, "offline"),
        (None, "online", "online"),
        (None, "dryrun", "offline"),
        ("disabled", "online", "disabled"),
        ("online", "offline", "online"),
    ],
)
def test_the_option_beats_the_environment(
    monkeypatch: pytest.MonkeyPatch, chosen: Any, environment: str | None, mode: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert wandb_mode(chosen) == mode


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(InputError, match="offline, online or disabled"):
        wandb_mode(None)


def test_disabled_starts_nothing(tmp_path: Path) -> None:
    assert start_wandb_loggers([Refusing()], tmp_path, "disabled") == []
    assert start_wandb_loggers([], tmp_path, "disabled") == []


def test_a_configured_logger_that_does_not_start_is_left_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="without Weights & Biases.*no account"):
        assert start_wandb_loggers([Refusing()], tmp_path, "offline") == []
    with pytest.raises(InputError, match="no account"):
        start_wandb_loggers([Refusing()], tmp_path, "online")


def test_a_service_that_dies_ends_nothing() -> None:
    logger = Refusing()
    with pytest.warns(UserWarning, match="Refusing failed.*no account"):
        use_epoch_axis(logger)
    finish_wandb(logger, failed=False)  # and is mentioned once


@pytest.mark.parametrize(
    ("offline", "chosen", "environment", "mode"),
    [
        (True, "online", None, "online"),
        (True, "online", "offline", "online"),
        (False, "offline", "online", "offline"),
        (True, None, "online", "offline"),
        (False, None, "online", "online"),
        (False, None, None, "offline"),
    ],
)
def test_an_explicit_mode_beats_the_logger_and_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool, chosen: Any, environment: str | None, mode: str
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **arguments: given.update(arguments))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    (logger,) = start_wandb_loggers([WandbLogger(offline=offline)], tmp_path, chosen)
    assert (given["mode"], given["dir"]) == (mode, str(tmp_path))
    assert logger.save_dir == str(tmp_path)


def test_a_folder_of_the_users_own_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **arguments: given.update(arguments))
    start_wandb_loggers([WandbLogger(save_dir=tmp_path / "mine")], tmp_path, "offline")
    assert given["dir"] == str(tmp_path / "mine")
