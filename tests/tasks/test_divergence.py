"""A training that diverges ends with one sentence, and a network that diverged is not measured."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback

from lightning_attn.callbacks import ShortcutProbe
from lightning_attn.cli.commands import main
from lightning_attn.errors import DivergedError
from lightning_attn.mitigations import InstanceWeighting, Mitigation
from lightning_attn.runs.checkpoint_file import read_checkpoint
from tests.helpers.commands import write_config
from tests.helpers.runs import tiny_data, tiny_module, trainer


class Spoil(Callback):
    """Makes the weights NaN in one step of one epoch."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            with torch.no_grad():
                next(pl_module.network.parameters()).fill_(torch.nan)


@pytest.mark.parametrize("mitigation", [None, InstanceWeighting()])
def test_a_training_that_diverges_says_so(mitigation: Mitigation | None, tmp_path: Path) -> None:
    data = tiny_data()
    run_by = trainer(tmp_path, max_epochs=3, callbacks=[Spoil(), ShortcutProbe()])
    with pytest.raises(DivergedError, match=r"diverged in epoch 1: weights of the network are NaN or infinite"):
        run_by.fit(tiny_module(data, mitigation), data)


def test_it_is_seen_in_a_long_epoch_too(tmp_path: Path) -> None:
    data = tiny_data(train=80)
    steps: list[int] = []

    class Count(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            steps.append(batch_idx)

    with pytest.raises(DivergedError, match="diverged in epoch 0"):
        trainer(tmp_path, log_every_n_steps=4, callbacks=[Spoil(0), Count()]).fit(tiny_module(data), data)
    assert steps == [0, 1, 2, 3]


def test_a_loss_that_is_no_number_is_enough(tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data)
    module.loss = lambda logits, target, weights=None: logits.sum() * 0 + torch.inf  # type: ignore[method-assign]
    module.network.requires_grad_(False)
    module.network.head.requires_grad_(True)
    with pytest.raises(DivergedError, match=r"diverged in epoch 0: (val|train)/loss is inf|weights"):
        trainer(tmp_path).fit(module, data)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_network_that_diverged_is_not_measured(stage: str, tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data)
    Spoil(0).on_train_batch_end(trainer(tmp_path), module, None, None, 1)
    with pytest.raises(DivergedError, match="Nothing can be measured: weights"):
        getattr(trainer(tmp_path, callbacks=[ShortcutProbe()]), stage)(module, datamodule=data)


def test_the_command_line_keeps_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    name = f"{Spoil.__module__}.{Spoil.__name__}"
    arguments = ["--config", str(config), f"--trainer.callbacks+={name}", "--trainer.max_epochs=3"]
    assert main(["fit", *arguments, f"--trainer.default_root_dir={tmp_path / 'runs'}"]) == 1
    output = capsys.readouterr()
    (sentence,) = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert "The training diverged in epoch 1: weights of the network" in sentence
    (folder,) = (tmp_path / "runs").iterdir()
    for name in ("best", "last"):
        checkpoint = read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")
        assert checkpoint["epoch"] == 0
        weights = [value for value in checkpoint["state_dict"].values() if isinstance(value, torch.Tensor)]
        assert all(weight.isfinite().all() for weight in weights)
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert not any(value == "nan" for row in rows for value in row.values())

    checkpoint["state_dict"]["network.head.layers.weight"].fill_(torch.nan)
    broken = tmp_path / "broken.ckpt"
    torch.save(checkpoint, broken)
    for command in (
        ["test", "--config", str(config), "--ckpt_path", str(broken)],
        ["predict", "--config", str(config), "--ckpt_path", str(broken)],
        ["explain", "--ckpt_path", str(broken), "--text", "the film was great"],
    ):
        assert main(command) == 1
        assert "weights of the network are NaN or infinite (head.layers.weight)" in capsys.readouterr().err
