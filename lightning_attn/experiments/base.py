"""What the callbacks of the experiments have in common: when they measure, on what, and where the result goes."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lightning_attn.callbacks.gathering import gathered
from lightning_attn.callbacks.media import publish
from lightning_attn.callbacks.sampled import SampledCallback, Split
from lightning_attn.callbacks.sampling import ExampleSample
from lightning_attn.callbacks.timing import moment_of, network_of
from lightning_attn.errors import InputError
from lightning_attn.experiments.figures import MOST_CLASSES
from lightning_attn.experiments.record import ExperimentRecord, joined
from lightning_attn.experiments.terminal import print_summary
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import is_plain
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.runs.folder import folder_of
from lightning_attn.types import Batch

Result = TypeVar("Result", bound=ExperimentRecord)
Columns = dict[str, Any]


class ExperimentCallback(SampledCallback, Generic[Result]):
    """Runs an experiment on a sample of the validation or test set, logs its figures and writes them down.

    Logs numbers under ``SPLIT/explanation/EXPERIMENT/``, and the means that matter for each predicted class as well,
    where there are at most six. The run folder gets ``explanation/SPLIT/EXPERIMENT.json`` with settings, summary and
    one row an example, and the figures as PNG and SVG; W&B gets figures and rows, TensorBoard the figures. In fit the
    files are those of the last measured epoch. In validate and test a table is printed.

    Examples for which a value is undefined are left out of its mean, and counted. Fit, validate and test give the
    same figures, on any number of processes. Training is the same to the last bit with and without the callback. Of
    several loaders the first is measured. Without a Trainer, call :meth:`measure`.

    Args:
        every_n_epochs: Validation epochs from one measurement to the next; validate and test always measure.
        max_examples: Size of the sample, at least 1, drawn at random once; None measures every example.
        splits: Where to measure, of ``val`` and ``test``.
        max_tokens: Positions, padding included, that are computed at a time.
        seed: Of the sample, and of what the experiment draws.

    Raises:
        InputError: A number is below 1, or a split is unknown.
    """

    #: What is found.
    record: type[Result]

    def __init__(
        self, every_n_epochs: int, max_examples: int | None, splits: Sequence[Split], max_tokens: int, seed: int
    ) -> None:
        super().__init__(every_n_epochs, max_examples, seed, splits)
        self._at_least_one(max_tokens=max_tokens)
        self.max_tokens = max_tokens

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The experiment's own settings, as plain values."""

    @abstractmethod
    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        """By name, one value an example, shape ``(B,)``, NaN where undefined; called without gradients."""

    def measure(self, network: AttentionNetwork, batches: Iterable[Batch], split: Split = "test") -> Result:
        """Run the experiment without a Trainer.

        Example:
            >>> data.setup("test")  # doctest: +SKIP
            >>> AgreementCallback().measure(module.network, data.test_dataloader()).summary()  # doctest: +SKIP

        Args:
            network: Built network; its device is where the batches go.
            batches: Those of a data loader; of their examples, a sample of ``max_examples`` is measured.
            split: How the record is named.

        Raises:
            InputError: There is no example.
        """
        sample = ExampleSample(self.max_examples, self.seed)
        device = next(network.parameters()).device
        for batch in batches:
            sample.add(batch.to(device))
        columns = joined(self._measured(network, sample.collected(), split, shown=True))
        if not columns:
            raise InputError(f"{type(self).__name__} was given no example to measure.")
        return self._record(network, columns, split, split)

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Run on the sample, log, and write down."""
        network = network_of(pl_module)
        # Lightning validates in inference mode, whose tensors cannot be differentiated.
        with torch.inference_mode(False):
            parts = self._measured(network, batches, split, trainer.is_global_zero)
        columns = joined(gathered(trainer, parts))
        folder = folder_of(trainer)
        if not columns:
            rank_zero_info(f"{split}/explanation/{self.record.name} is not logged: there was no example.")
            return
        record = self._record(network, columns, split, moment_of(trainer))
        self._log(pl_module, record)
        if trainer.is_global_zero:
            place = folder / "explanation" / split / record.name
            document = json.dumps(record.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
            publish(trainer, place, f"{split}/explanation/{record.name}", document, record.figures(), record.rows())
            if trainer.state.fn not in (None, TrainerFn.FITTING):
                print_summary(trainer, record, place.with_suffix(".json"))

    def _measured(
        self, network: AttentionNetwork, batches: Sequence[Batch], split: str, shown: bool
    ) -> list[dict[str, Any]]:
        """Columns of each batch, as arrays."""
        parts = []
        console = Console(stderr=True)
        described = f"{self.record.title} ({split})"
        for batch in track(
            batches, described, console=console, transient=True, disable=not shown or not console.is_terminal
        ):
            with torch.no_grad():
                with evaluating(network):
                    output = network(batch)
                inner = batch.inner
                columns = {
                    "index": batch.index,
                    "target": batch.target,
                    "prediction": output.logits.argmax(dim=-1),
                    "tokens": inner.sum(dim=-1),
                    "largest_weight": output.attention.masked_fill(~inner, 0.0).amax(dim=-1),
                    **self.measured(network, batch),
                }
            parts.append({name: column.cpu().numpy() for name, column in columns.items()})
        return parts

    def _record(self, network: AttentionNetwork, columns: Columns, split: Split, moment: str) -> Result:
        schema = network.schema
        values = {name: column for name, column in columns.items() if name not in ("index", "target", "prediction")}
        common = {"max_examples": self.max_examples, "max_tokens": self.max_tokens, "seed": self.seed}
        return self.record(
            split=split,
            moment=moment,
            settings={**self.settings, **common},
            classes=schema.names,
            index=columns["index"],
            target=columns["target"],
            prediction=columns["prediction"],
            values={name: column.astype(np.float64) for name, column in values.items()},
        )

    def _log(self, pl_module: LightningModule, record: ExperimentRecord) -> None:
        """Every process has the same record by now; the largest of equal numbers is that number."""
        figures = {"examples": float(len(record)), **record.summary()}
        if len(record.classes) <= MOST_CLASSES:
            for name, part in record.by_class().items():
                summary = part.summary()
                figures |= {f"{headline}/{name}": summary[headline] for headline in record.headlines}
        for name, value in figures.items():
            if value is not None:
                key = f"{record.split}/explanation/{record.name}/{name}"
                pl_module.log(key, float(value), sync_dist=True, reduce_fx="max", batch_size=1)


def described(thing: object) -> dict[str, Any]:
    """A solver or a source as plain values: its class, and what it was given; of other objects, their classes."""
    given = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
    return {
        "class": type(thing).__name__,
        **{name: value if is_plain(value) else type(value).__name__ for name, value in given.items()},
    }
