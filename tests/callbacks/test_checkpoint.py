from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_attn.callbacks.checkpoint import BestAndLastCheckpoint, is_finished


class Phased:
    """Stands in for a mitigation that changes its phase after two epochs."""

    def __init__(self, module: LightningModule) -> None:
        self.module = module

    @property
    def phase(self) -> str:
        return "random" if self.module.current_epoch < 2 else "learn"


class Scripted(LightningModule):
    """Its validation loss is given, epoch by epoch."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses = losses
        self.layer = nn.Linear(1, 1)
        self.mitigation = Phased(self)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.layer(batch[0]).mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.losses[self.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(
    folder: Path,
    losses: list[float],
    logger: Logger | bool = False,
    ckpt_path: Path | None = None,
    **kwargs: Any,
) -> tuple[BestAndLastCheckpoint, Trainer]:
    callback = BestAndLastCheckpoint(**kwargs)
    trainer = Trainer(
        max_epochs=len(losses),
        default_root_dir=folder,
        accelerator="cpu",
        logger=logger,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), 2)
    trainer.fit(Scripted(losses), loader, loader, ckpt_path=ckpt_path, weights_only=True)
    return callback, trainer


def epoch_of(folder: Path, name: str) -> int:
    return int(torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"])


def test_there_are_two_files_and_no_others(tmp_path: Path) -> None:
    fit(tmp_path, [0.9, 0.8, 0.7])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([0.3, 0.2, 0.9, 0.8], 3),  # what was better under random attention does not count
        ([0.3, 0.2, 0.8, 0.9], 2),
        ([0.3, 0.2], 1),
        ([0.9, 0.9, float("nan"), 0.5], 3),
    ],
)
def test_the_best_is_that_of_the_present_phase(tmp_path: Path, losses: list[float], best: int) -> None:
    callback, _ = fit(tmp_path, losses)
    assert epoch_of(tmp_path, "best") == best
    assert callback.best_model_score == pytest.approx(losses[best])
    assert epoch_of(tmp_path, "last") == len(losses) - 1


def test_the_largest_is_best_in_mode_max(tmp_path: Path) -> None:
    fit(tmp_path, [0.1, 0.1, 0.9, 0.5], mode="max")
    assert epoch_of(tmp_path, "best") == 2


def test_a_kill_while_writing_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, trainer = fit(tmp_path, [0.5])
    old = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()

    def die(self: Trainer, path: str, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyError("killed")

    monkeypatch.setattr(Trainer, "save_checkpoint", die)
    trainer.fit_loop.max_epochs = 2
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), 2)
    with pytest.raises(KeyError):
        trainer.fit(Scripted([0.5, 0.4]), loader, loader)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == old


@pytest.mark.parametrize(
    ("limits", "epochs"),
    [
        ({}, 4),
        ({"max_epochs": -1, "max_steps": 6}, 3),
        ({"callbacks": [EarlyStopping("val/loss", patience=1)]}, 2),
    ],
)
def test_the_last_checkpoint_of_a_training_says_so(tmp_path: Path, limits: dict[str, Any], epochs: int) -> None:
    says = []

    class Watched(BestAndLastCheckpoint):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            says.append(is_finished(torch.load(self.last_model_path, weights_only=True)))

    limits = {"max_epochs": 4, **limits}
    callbacks = [*limits.pop("callbacks", []), Watched()]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), 2)
    trainer = Trainer(default_root_dir=tmp_path, callbacks=callbacks, **quiet, **limits)
    trainer.fit(Scripted([0.5, 0.6, 0.7, 0.8]), loader, loader)
    assert says == [False] * (epochs - 1) + [True]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    callback = BestAndLastCheckpoint()
    trainer = Trainer(
        fast_dev_run=True, default_root_dir=tmp_path, accelerator="cpu", callbacks=[callback], logger=False
    )
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), 2)
    trainer.fit(Scripted([0.1]), loader, loader)
    assert not list(tmp_path.iterdir())


def test_a_copied_run_goes_on_from_its_own_best(tmp_path: Path) -> None:
    fit(tmp_path / "old", [0.9, 0.9, 0.1])
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    # Another best one lies at the recorded place by now.
    (tmp_path / "old" / "checkpoints" / "best.ckpt").write_bytes(b"another")
    last = tmp_path / "copy" / "checkpoints" / "last.ckpt"
    fit(tmp_path / "new", [0.9, 0.9, 0.1, 0.5], ckpt_path=last)
    best = tmp_path / "copy" / "checkpoints" / "best.ckpt"
    assert (tmp_path / "new" / "checkpoints" / "best.ckpt").read_bytes() == best.read_bytes()


def test_another_trainer_replaces_nothing(tmp_path: Path) -> None:
    fit(tmp_path, [0.5])
    old = {path: path.read_bytes() for path in tmp_path.rglob("*.ckpt")}
    with pytest.warns(UserWarning, match="results of another run"):
        callback, _ = fit(tmp_path, [0.4])
    assert {path: path.read_bytes() for path in old} == old
    assert callback.best_model_path == str(tmp_path / "version_1" / "checkpoints" / "best.ckpt")
    assert Path(callback.best_model_path).is_file()


def test_a_logger_of_checkpoints_finds_what_it_reads(tmp_path: Path) -> None:
    """WandbLogger(log_model=True) treats every checkpoint callback as a ModelCheckpoint."""
    kept: list[str] = []

    class Keeps(WandbLogger):
        @property
        def experiment(self) -> Any:
            class Run:
                id = "abc"
                config: ClassVar[dict[str, Any]] = {}

                def log(self, *_: Any) -> None: ...

                def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
                    kept.append(",".join(aliases))

            return self._experiment or Run()

    logger = Keeps(save_dir=tmp_path, project="mine", version="abc", log_model=True)
    logger._experiment = logger.experiment
    fit(tmp_path, [0.5, 0.4], logger=logger)
    assert sorted(kept) == ["latest", "latest,best"]
    assert epoch_of(tmp_path / "mine" / "abc", "best") == 1


def test_a_logger_with_versions_decides_the_folder(tmp_path: Path) -> None:
    fit(tmp_path, [0.5], logger=CSVLogger(tmp_path, name="mine"))
    fit(tmp_path, [0.4], logger=CSVLogger(tmp_path, name="mine"))
    assert {path.parent.parent.name for path in tmp_path.rglob("best.ckpt")} == {"version_0", "version_1"}
