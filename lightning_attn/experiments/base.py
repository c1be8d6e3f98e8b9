"""What experiments have in common: the batch in parts; when a callback measures, on what, where the result goes."""

from __future__ import annotations

import io
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from lightning_attn.callbacks.media import publish
from lightning_attn.callbacks.sampled import (
    ExampleSample,
    SampledCallback,
    Split,
    gathered,
    moment_of,
    network_of,
)
from lightning_attn.errors import InputError
from lightning_attn.experiments.figures import MOST_CLASSES
from lightning_attn.experiments.record import ExperimentRecord, joined
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import is_plain
from lightning_attn.ops import parts
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.text import to_json, visible
from lightning_attn.runs.folder import folder_of
from lightning_attn.types import AttentionOutput, Batch

T = TypeVar("T")
Result = TypeVar("Result", bound=ExperimentRecord)
Columns = dict[str, Any]


def by_parts(function: Callable[[Batch], T], batch: Batch, max_tokens: int) -> T:
    """Call ``function`` on padded parts, as :func:`lightning_attn.ops.parts.by_parts` does; no gradients."""
    with torch.no_grad():
        return parts.by_parts(lambda rows: function(batch.select(rows).padded()), batch.valid, max_tokens)


def by_outputs(
    function: Callable[[AttentionOutput, Batch], T], network: AttentionNetwork, batch: Batch, max_tokens: int
) -> T:
    """As :func:`by_parts`, with what the network computes in evaluation mode for each part, its query read."""

    def run(part: Batch) -> T:
        with evaluating(network):
            part = network.read_query(part)
            output = network(part)
        return function(output, part)

    return by_parts(run, batch, max_tokens)


class ExperimentCallback(SampledCallback, Generic[Result]):
    """Runs an experiment on a sample of the validation or test set, logs its figures and writes them down.

    Logs numbers under ``SPLIT/explanation/EXPERIMENT/``, and the means that matter for each predicted class as well,
    where there are at most six. The run folder gets ``explanation/SPLIT/EXPERIMENT.json`` with settings, summary and
    one row per example, and the figures as PNG and SVG; W&B gets figures and rows, TensorBoard the figures. In fit the
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

    #: Class of the result.
    record: type[Result]

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_examples: int | None = 512,
        splits: Sequence[Split] = ("test",),
        max_tokens: int = 16384,
        seed: int = 0,
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
        """By name, one value per example, shape ``(B,)``, NaN where undefined; called without gradients."""

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
        columns = joined(self._measured(network, sample.collected(), split, progress=True))
        if not columns:
            raise InputError(f"{type(self).__name__} was given no example to measure.")
        return self._record(network, columns, split, split)

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Run on the sample, log, and write down."""
        network = network_of(pl_module)
        # Lightning validates in inference mode, whose tensors cannot be differentiated.
        with torch.inference_mode(False):
            measured = self._measured(network, batches, split, trainer.is_global_zero)
        columns = joined(gathered(trainer, measured))
        folder = folder_of(trainer)
        if not columns:
            rank_zero_info(f"{split}/explanation/{self.record.name} is not logged: there was no example.")
            return
        record = self._record(network, columns, split, moment_of(trainer))
        self._log(pl_module, record)
        if trainer.is_global_zero:
            place = folder / "explanation" / split / record.name
            document = to_json(record.as_dict(), indent=1)
            publish(trainer, place, f"{split}/explanation/{record.name}", document, record.figures(), record.rows())
            if trainer.state.fn not in (None, TrainerFn.FITTING):
                print_summary(trainer, record, place.with_suffix(".json"))

    def _measured(
        self, network: AttentionNetwork, batches: Sequence[Batch], split: str, progress: bool
    ) -> list[dict[str, Any]]:
        """Columns of each batch, as arrays."""
        measured = []
        console = Console(stderr=True)
        title = f"{self.record.title} ({split})"
        for batch in track(
            batches, title, console=console, transient=True, disable=not progress or not console.is_terminal
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
            measured.append({name: _array(column) for name, column in columns.items()})
        return measured

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
                figures |= {f"{headline}/{visible(name)}": summary[headline] for headline in record.headlines}
        for name, value in figures.items():
            if value is not None:
                key = f"{record.split}/explanation/{record.name}/{name}"
                pl_module.log(key, float(value), sync_dist=True, reduce_fx="max", batch_size=1)


def print_summary(trainer: Trainer, record: ExperimentRecord, path: Path) -> None:
    """Print a table of the summary, with a column for each predicted class if they are few.

    Args:
        trainer: Its progress bar is left whole.
        record: Of the evaluation that ended.
        path: Where it was written, named below the table.
    """
    columns = {"all": record, **(record.by_class() if len(record.classes) <= MOST_CLASSES else {})}
    table = Table(title=f"{record.title} ({record.split})", title_justify="left", title_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(visible(name), justify="right")
    table.add_row("examples", *(f"{len(part):,}" for part in columns.values()))
    summaries = [part.summary() for part in columns.values()]
    for name in summaries[0]:
        if name.endswith("undefined") and not summaries[0][name]:
            continue  # as a person expects
        words = record.words.get(name, name.replace("_", " ").replace("/", ": "))
        table.add_row(words, *(_formatted(summary[name]) for summary in summaries))
    text = io.StringIO()
    console = Console(file=text, width=Console().width, force_terminal=sys.stdout.isatty(), markup=False)
    console.print(table)
    text.write(visible(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)))
    bar = trainer.progress_bar_callback
    if bar is not None:
        bar.print(text.getvalue())  # above the bar, which a plain print would tear apart
    else:
        print(text.getvalue(), flush=True)


def _formatted(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _array(column: Tensor) -> npt.NDArray[Any]:
    """On the CPU; numpy knows no bfloat16."""
    return (column.float() if column.dtype == torch.bfloat16 else column).cpu().numpy()


def describe(thing: object) -> dict[str, Any]:
    """A solver or a source as plain values: its class and its attributes; of other objects, their classes."""
    attributes = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
    return {
        "class": type(thing).__name__,
        **{name: value if is_plain(value) else type(value).__name__ for name, value in attributes.items()},
    }
