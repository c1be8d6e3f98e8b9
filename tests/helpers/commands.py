"""Small runs of the command line, for tests."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback

from lightning_attn.cli.commands import main

TINY: dict[str, Any] = {
    "model": {
        "class_path": "AttentionClassifier",
        "init_args": {
            "network": {
                "class_path": "PooledNetwork",
                "init_args": {
                    "encoder": {
                        "class_path": "BiLSTM",
                        "init_args": {"embedding_size": 8, "hidden_size": 4, "values": "local", "dropout": 0.3},
                    }
                },
            },
            "mitigation": {
                "class_path": "Compose",
                "init_args": {
                    "mitigations": [
                        {"class_path": "RandomPretraining", "init_args": {"epochs": 1}},
                        {"class_path": "InstanceWeighting", "init_args": {"warmup_steps": 12}},
                    ]
                },
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.02}},
        },
    },
    "data": {
        "class_path": "SyntheticReviewsDataModule",
        "init_args": {"train_size": 160, "val_size": 40, "test_size": 40, "batch_size": 16},
    },
    "trainer": {"max_epochs": 4, "accelerator": "cpu", "devices": 1},
}


class Slow(Callback):
    """Takes its time over every step."""

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(0.03)


def write_config(folder: Path, **sections: dict[str, Any]) -> Path:
    """``TINY`` with whole sections exchanged, as a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **sections}))
    return path


def command(subcommand: str, config: Path, runs: Path, *options: str) -> list[str]:
    return [subcommand, "--config", str(config), f"--trainer.default_root_dir={runs}", *options]


def run(subcommand: str, config: Path, runs: Path, *options: str) -> Path:
    """Run in this process; returns the run's folder."""
    before = set(runs.iterdir()) if runs.exists() else set()
    status = main(command(subcommand, config, runs, "--wandb=disabled", *options))
    assert status == 0
    (folder,) = set(runs.iterdir()) - before
    return folder


def start(*arguments: str, cwd: Path | None = None, **kwargs: Any) -> subprocess.Popen[str]:
    """Run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lightning_attn", *arguments],
        text=True,
        cwd=cwd or Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Where the tests themselves run in the background, Ctrl-C is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **kwargs,
    )


def last(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


def assert_same_training(one: Path, other: Path) -> None:
    """Weights, optimiser, schedulers and the mitigation's own state, bit for bit."""
    first, second = last(one), last(other)
    assert first["epoch"] == second["epoch"]
    assert first["global_step"] == second["global_step"]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        _assert_equal(first[part], second[part], part)


def _assert_equal(one: Any, other: Any, place: str) -> None:
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            _assert_equal(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            _assert_equal(left, right, f"{place}[{number}]")
    else:
        assert one == other, place
