"""What measuring costs: ``python -m benchmarks.callback`` prints the share of a training epoch, median of five.

A BiLSTM (128/128) on SST where ``LIGHTNING_ATTN_DATA`` says it is, else on as many synthetic reviews; the
`FaithfulnessCallback`, then the `ShortcutProbe`, with its default measures, runs after every epoch. An epoch and the
measurement after it are timed in the same run, so that the load of the machine changes both. The first measurement of
the probe, which trains evaluators that later ones share, is shown apart.
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
from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks.fitting import timed_trainer
from lightning_attn.callbacks import FaithfulnessCallback, ShortcutProbe
from lightning_attn.callbacks.sampled import SampledCallback
from lightning_attn.data import AttentionDataModule, SSTDataModule, SyntheticReviewsDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.networks import PooledNetwork
from lightning_attn.tasks import AttentionClassifier

REPEATS = 5
TARGETS: dict[type[SampledCallback], float] = {FaithfulnessCallback: 0.35, ShortcutProbe: 0.25}


class Stopwatch(Callback):
    """Seconds of each epoch's training and of each measurement by another callback.

    Args:
        measured: The callback, which is not to be given to the Trainer itself: its hooks are called from here.
    """

    def __init__(self, measured: SampledCallback) -> None:
        self.measured = measured
        self.training: list[float] = []
        self.measuring: list[float] = []
        self._collecting = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.measured.setup(trainer, pl_module, stage)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training.append(time.perf_counter() - self._start)
        self._collecting = 0.0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measured.on_validation_epoch_start(trainer, pl_module)

    def on_validation_batch_end(self, *arguments: Any, **named: Any) -> None:
        start = time.perf_counter()
        self.measured.on_validation_batch_end(*arguments, **named)
        self._collecting += time.perf_counter() - start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start = time.perf_counter()
        self.measured.on_validation_epoch_end(trainer, pl_module)
        if isinstance(self.measured, FaithfulnessCallback):
            # The metrics are computed when Lightning collects what was logged; here, to be on the clock.
            for metric in pl_module.faithfulness.values():  # type: ignore[operator,union-attr]
                metric.compute()
        self.measuring.append(self._collecting + time.perf_counter() - start)


def data() -> AttentionDataModule:
    folder = os.environ.get("LIGHTNING_ATTN_DATA")
    return SSTDataModule(f"{folder}/sst") if folder else SyntheticReviewsDataModule(train_size=6920, val_size=872)


def compare(measured: SampledCallback, repeats: int) -> float:
    """Print the line of a callback, and give the median share of an epoch that it takes."""
    watch, kind = Stopwatch(measured), type(measured)
    torch.manual_seed(0)
    trainer = timed_trainer(max_epochs=repeats + 1, callbacks=[watch])
    trainer.fit(AttentionClassifier(PooledNetwork(BiLSTM())), data())
    # The first epoch warms up, and evaluators are trained there once.
    ratios = [spent / epoch for spent, epoch in zip(watch.measuring[1:], watch.training[1:], strict=True)]
    epoch, measurement, ratio = (
        statistics.median(watch.training),
        statistics.median(watch.measuring[1:]),
        statistics.median(ratios),
    )
    missed = "" if ratio <= TARGETS[kind] else ", missed"
    print(
        f"{kind.__name__}, {measured.max_examples} examples: epoch {epoch:.2f} s, measurement {measurement:.2f} s, "
        f"ratio {ratio:.3f} [{min(ratios):.3f}, {max(ratios):.3f}] of {repeats} (target {TARGETS[kind]}{missed}); "
        f"the first one {watch.measuring[0] / watch.training[0]:.3f}",
        flush=True,
    )
    return ratio


def main(arguments: list[str] | None = None) -> None:
    """Print a line per callback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--max_examples", type=int, help="size of the sample; the default's if not given")
    parser.add_argument("--callback", choices=[kind.__name__ for kind in TARGETS], help="None takes both")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sample = {} if chosen.max_examples is None else {"max_examples": chosen.max_examples}
    for kind in TARGETS:
        if chosen.callback in (None, kind.__name__):
            compare(kind(**sample), chosen.repeats)


if __name__ == "__main__":
    main()
