"""The same few texts every epoch, highlighted by their attention: `AttentionTableCallback`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_attn.callbacks.media import Cell, Media, show
from lightning_attn.callbacks.sampled import SampledCallback, Split, gathered, moment_of, network_of
from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.runs.folder import folder_of
from lightning_attn.types import Batch, DataSchema
from lightning_attn.visualization.highlight import HighlightRow, HighlightSection, Score, highlight_page
from lightning_attn.visualization.highlight import highlight_figure as draw

COLUMNS = ("moment", "example", "text", "label", "predicted", "probability", "largest weights")
#: The figure has so many texts, each at so many epochs.
_FIGURE_TEXTS, _FIGURE_EPOCHS = 4, 5


@dataclass
class View:
    """One text at one moment, in plain values that travel between processes.

    Attributes:
        moment: ``epoch 3``, or ``validate`` or ``test`` of a network that is not being trained.
        example: Row of the data set.
        tokens: None on special tokens, which are not shown.
        weights: Attention on each token.
        label: Name of the true class or classes.
        predicted: Name of the predicted class or classes.
        probability: Of the most probable class.
    """

    moment: str
    example: int
    tokens: list[str | None]
    weights: list[Score]
    label: str
    predicted: str
    probability: float

    @property
    def text(self) -> str:
        """The tokens as one string."""
        return " ".join(token for token in self.tokens if token is not None)

    @property
    def caption(self) -> str:
        """The moment, what the network answered, and whether that is right."""
        return f"{self.moment}: {self.predicted} {self.probability:.2f} {'✓' if self.predicted == self.label else '✗'}"


class AttentionTableCallback(SampledCallback):
    """Shows what the network attends to, epoch by epoch, on a few texts of the validation or test set.

    The run folder gets one page, ``attention/val.html``, with each text at every measured epoch, and a picture of the
    first few texts, ``attention/val.png``. W&B gets the highlighted texts of the epoch (``val/attention_html``) and a
    table (``val/attention_table``), TensorBoard the picture. Works in fit, validate and test, for which the names
    start with ``test``.

    Args:
        max_examples: Texts to show, at least 1.
        every_n_epochs: Validation epochs from one look to the next; validate and test always look.
        seed: Another seed, other texts.

    Raises:
        InputError: A number is below 1.
    """

    def __init__(self, max_examples: int = 8, every_n_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(every_n_epochs, max_examples, seed)
        self._history: dict[str, dict[int, dict[str, View]]] = {}

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Show the examples of all processes."""
        network = network_of(pl_module)
        views: list[View] = []
        for batch in batches:
            with torch.no_grad(), evaluating(network):
                output = network(batch)
            probabilities = network.schema.probabilities(output.logits)
            views += _views(trainer, network.schema, batch, output.attention, probabilities)
        # A sampler that repeats rows may have given one to two processes.
        distinct = {view.example: view for view in gathered(trainer, views)}
        views = [distinct[example] for example in sorted(distinct)]
        folder = folder_of(trainer)
        if trainer.is_global_zero and views:
            history = self._history.setdefault(split, {})
            for view in views:
                history.setdefault(view.example, {})[view.moment] = view
            show(trainer, folder, split, "attention", _media(split, history, views))


def _views(trainer: Trainer, schema: DataSchema, batch: Batch, attention: Tensor, probabilities: Tensor) -> list[View]:
    data = getattr(trainer, "datamodule", None)
    views = []
    for row in range(len(batch)):
        valid, inner = batch.valid[row], batch.inner[row].tolist()
        if batch.inputs.is_floating_point():
            tokens = [str(position) for position in range(len(inner))]
        elif isinstance(data, CorpusDataModule):
            tokens = data.processor.tokens(batch.inputs[row].tolist())
        else:
            tokens = [str(token) for token in batch.inputs[row].tolist()]
        length = int(valid.sum())
        views.append(
            View(
                moment=moment_of(trainer),
                example=int(batch.index[row]),
                tokens=[token if keep else None for token, keep in zip(tokens, inner, strict=True)][:length],
                weights=list(attention[row, :length].tolist()),
                label=schema.named_target(batch.target[row]),
                predicted=schema.named_prediction(probabilities[row]),
                probability=float(probabilities[row].max()),
            )
        )
    return views


def _media(split: str, history: dict[int, dict[str, View]], views: list[View]) -> Media:
    """The page and the figure show all epochs, the rest the last one."""
    by_example = [list(history[view.example].values()) for view in views]
    sections = [
        HighlightSection(
            f"Example {texts[0].example}: {texts[0].label}",
            [HighlightRow(view.caption, view.tokens, view.weights) for view in texts],
        )
        for texts in by_example
    ]
    note = "The deeper the colour, the larger the attention weight, relative to the largest of its text."
    if sections:
        sections[0].note = note
    pictured = [
        HighlightRow(view.caption, view.tokens, view.weights)
        for texts in by_example[:_FIGURE_TEXTS]
        for view in _spread(texts, _FIGURE_EPOCHS)
    ]
    rows: list[list[Cell]] = [
        [view.moment, view.example, view.text, view.label, view.predicted, view.probability, _largest(view)]
        for view in views
    ]
    lines = [
        HighlightSection(
            f"Example {view.example}: {view.label}", [HighlightRow(view.caption, view.tokens, view.weights)]
        )
        for view in views
    ]
    title = "Attention on the validation set" if split == "val" else "Attention on the test set"
    return Media(highlight_page(title, sections), highlight_page(title, lines), COLUMNS, rows, draw(pictured))


def _spread(views: list[View], count: int) -> list[View]:
    """At most ``count`` of them, evenly spread, the first and the last among them."""
    if len(views) <= count:
        return views
    return [views[round(place * (len(views) - 1) / (count - 1))] for place in range(count)]


def _largest(view: View, count: int = 3) -> str:
    pairs = [
        (weight or 0.0, token) for token, weight in zip(view.tokens, view.weights, strict=True) if token is not None
    ]
    best = sorted(pairs, key=lambda pair: -pair[0])[:count]
    return ", ".join(f"{token} {weight:.2f}" for weight, token in best)
