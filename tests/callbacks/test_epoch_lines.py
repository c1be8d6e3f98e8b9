"""What a training says of each epoch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lightning_attn.callbacks import EpochLines, FaithfulnessCallback
from tests.helpers.runs import tiny_data, tiny_module, trainer


def figures(output: str) -> list[list[str]]:
    """By epoch, the names of the figures in its line."""
    lines = re.findall(r"^Epoch \d+ .* s: (.*)$", output, flags=re.MULTILINE)
    return [[part.rsplit(" ", 1)[0] for part in line.split(", ")] for line in lines]


def test_figures_of_earlier_epochs_are_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_data()
    measured = FaithfulnessCallback(max_examples=4, every_n_epochs=4, metrics=["faithfulness/kendall_loo"])
    run = trainer(tmp_path, max_epochs=5, check_val_every_n_epoch=2, callbacks=[EpochLines(), measured])
    run.fit(tiny_module(data, sharpness=3.0), data)
    validated = ["train/loss", "val/loss", "val/accuracy"]
    assert figures(capsys.readouterr().out) == [
        ["train/loss"],
        validated,
        ["train/loss"],
        [*validated, "val/faithfulness/kendall_loo"],
        ["train/loss"],
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "on 1 x CPU, 6 steps per epoch."),
        (
            {"precision": "bf16-mixed"},
            "on 1 x CPU in bf16-mixed precision (validated and measured without autocast)",
        ),
        ({"precision": "64-true"}, "on 1 x CPU in 64-true precision, 6 steps per epoch."),
    ],
)
def test_it_says_how_it_trains(
    arguments: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_data()
    trainer(tmp_path, callbacks=[EpochLines()], **arguments).fit(tiny_module(data), data)
    assert words in capsys.readouterr().out


def test_a_finished_training_has_nothing_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_data()
    run = trainer(tmp_path, max_epochs=2, callbacks=[EpochLines()])
    run.fit(tiny_module(data), data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert "Nothing is left" not in capsys.readouterr().out
    again = trainer(tmp_path, max_epochs=2, callbacks=[EpochLines()])
    again.fit(tiny_module(data), data, ckpt_path=str(tmp_path / "last.ckpt"))
    assert "Nothing is left to train: 2 of 2 epochs are done; to go on, give a larger" in capsys.readouterr().out
