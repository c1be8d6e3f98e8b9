"""A module that notes the rows that every stage gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_attn.types import Batch


class Recorder(pl.LightningModule):
    """Notes the rows that every stage gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[list[int]]] = {stage: [] for stage in ("train", "val", "test")}

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.seen["train"].append(batch.index.tolist())
        return self.weight * batch.inputs.float().mean()

    def validation_step(self, batch: Batch, _: int) -> None:
        if not self.trainer.sanity_checking:
            self.seen["val"].append(batch.index.tolist())

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen["test"].append(batch.index.tolist())
        # a collective at the end of the epoch, as metrics have: it hangs if a rank leaves evaluation out
        self.log("rows", float(len(batch)), on_epoch=True, sync_dist=True, reduce_fx="sum", batch_size=1)

    def predict_step(self, batch: Batch, _: int) -> list[int]:
        return batch.index.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    defaults = {"max_epochs": 2, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        **{**defaults, "accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": folder, **arguments}
    )


def flat(batches: list[list[int]]) -> list[int]:
    return sorted(row for batch in batches for row in batch)
