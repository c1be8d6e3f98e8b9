"""What measuring costs: ``python -m benchmarks.callback`` prints the share of a training epoch, median of five.

A BiLSTM (128/128) on SST where ``LIGHTNING_ATTN_DATA`` says it is, else on as many synthetic reviews; the
`FaithfulnessCallback` with its default measures runs after every epoch. An epoch and the measurement after it are timed
in the same run, so that the load of the machine changes both.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
import warnings
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_attn.callbacks import FaithfulnessCallback
from lightning_attn.data import AttentionDataModule, SSTDataModule, SyntheticReviewsDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.modules import AttentionClassifier
from lightning_attn.networks import PooledNetwork

REPEATS = 5
TARGET = 0.35


class Timed(FaithfulnessCallback):
    """The callback, and the seconds of each epoch's training and of each measurement."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.training: list[float] = []
        self.measuring: list[float] = []
        self._collecting = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training.append(time.perf_counter() - self._start)
        self._collecting = 0.0

    def on_validation_batch_end(self, *arguments: Any, **named: Any) -> None:
        start = time.perf_counter()
        super().on_validation_batch_end(*arguments, **named)
        self._collecting += time.perf_counter() - start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start = time.perf_counter()
        super().on_validation_epoch_end(trainer, pl_module)
        # The metrics are computed when Lightning collects what was logged; here, to be on the clock.
        for metric in pl_module.faithfulness.values():
            metric.compute()
        self.measuring.append(self._collecting + time.perf_counter() - start)


def data() -> AttentionDataModule:
    folder = os.environ.get("LIGHTNING_ATTN_DATA")
    return SSTDataModule(f"{folder}/sst") if folder else SyntheticReviewsDataModule(train_size=6920, val_size=872)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max_examples", type=int, nargs="*", help="sizes of the sample; the default's if not given")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for size in arguments.max_examples or [None]:
        callback = Timed() if size is None else Timed(max_examples=size)
        torch.manual_seed(0)
        trainer = Trainer(
            max_epochs=REPEATS + 1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[callback],
        )
        trainer.fit(AttentionClassifier(PooledNetwork(BiLSTM())), data())
        # The first epoch warms up.
        ratios = [spent / epoch for spent, epoch in zip(callback.measuring[1:], callback.training[1:], strict=True)]
        epoch, measurement = statistics.median(callback.training), statistics.median(callback.measuring)
        print(
            f"FaithfulnessCallback, {callback.max_examples} examples: epoch {epoch:.2f} s, measurement "
            f"{measurement:.2f} s, ratio {statistics.median(ratios):.3f} "
            f"[{min(ratios):.3f}, {max(ratios):.3f}] of {REPEATS} (target {TARGET})"
        )


if __name__ == "__main__":
    main()
