"""The same few bags every epoch, their images in the order of the attention: `BagImagesCallback`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_attn.callbacks.media import publish
from lightning_attn.callbacks.sampled import SampledCallback, Split, gathered, moment_of, network_of
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.text import to_json
from lightning_attn.runs.folder import folder_of
from lightning_attn.types import Batch
from lightning_attn.visualization.bag_figure import BagRow, bag_figure, is_image


@dataclass
class BagView:
    """One bag at one moment, in plain values.

    Attributes:
        bag: Row of the data set.
        label: Name of the true class.
        predicted: Name of the predicted class.
        probability: Of the most probable class.
        weights: Attention on each instance.
        keys: Which are key instances; None if that is not known.
    """

    bag: int
    label: str
    predicted: str
    probability: float
    weights: list[float]
    keys: list[float] | None

    @property
    def caption(self) -> str:
        """What is in the bag, what the network answered, and whether that is right."""
        right = "✓" if self.predicted == self.label else "✗"
        return f"Bag {self.bag}: {self.label}\n{self.predicted} {self.probability:.2f} {right}"


class BagImagesCallback(SampledCallback):
    """Shows what the network attends to in a few bags of images of the validation or test set.

    The run folder gets a picture, ``bags/val/bags.png`` and ``.svg``, and its numbers, ``bags/val/bags.json``. W&B gets
    the picture every epoch (``val/bags_figure``) and a table (``val/bags_table``), TensorBoard the picture. Works in
    fit, validate and test, for which the names have ``test``. Data without evidence have no frames around key
    instances.

    Example:
        >>> callback = BagImagesCallback(max_examples=4)

    Args:
        max_examples: Bags to show, at least 1.
        most: Images of a bag to show, those with the largest weights, at least 1.
        every_n_epochs: Validation epochs from one look to the next; validate and test always look.
        seed: Another seed, other bags.

    Raises:
        InputError: A number is below 1; when an evaluation starts: instances are no images.
    """

    def __init__(self, max_examples: int = 8, most: int = 20, every_n_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(every_n_epochs, max_examples, seed)
        self._at_least_one(most=most)
        self.most = most

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the bags of the last epoch; in the sanity check already, see that there are images to show.

        Raises:
            InputError: Instances are no images.
        """
        shape = network_of(pl_module).schema.feature_shape
        if not is_image(shape):
            kind = f"features of shape {shape}" if shape is not None else "token ids"
            raise InputError(
                "BagImagesCallback shows bags of images, of shape (H, W), (1, H, W) or (3, H, W), but the instances "
                f"are {kind}: leave it out."
            )
        super().start(trainer, pl_module)

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Show the examples of all processes."""
        network = network_of(pl_module)
        mine = [pair for batch in batches for pair in _views(network, batch)]
        # A sampler that repeats rows may have given one to two processes.
        distinct = {view.bag: (view, row) for view, row in gathered(trainer, mine)}
        folder = folder_of(trainer)
        if not trainer.is_global_zero or not distinct:
            return
        views, rows = zip(*(distinct[bag] for bag in sorted(distinct)), strict=True)
        document = to_json({"moment": moment_of(trainer), "bags": [asdict(view) for view in views]}, indent=1)
        table = [
            {
                "moment": moment_of(trainer),
                "bag": view.bag,
                "label": view.label,
                "predicted": view.predicted,
                "probability": view.probability,
                "weights": [f"{weight:.3f}" for weight in view.weights],
                "keys": [] if view.keys is None else [str(place) for place, key in enumerate(view.keys) if key > 0],
            }
            for view in views
        ]
        place = folder / "bags" / split / "bags"
        publish(trainer, place, f"{split}/bags", document, {"bags": bag_figure(rows, self.most)}, table)


def _views(network: AttentionNetwork, batch: Batch) -> list[tuple[BagView, BagRow]]:
    """Of each bag its numbers and what is drawn of it, on the CPU."""
    with torch.no_grad(), evaluating(network):
        output = network(batch)
    schema = network.schema
    probabilities = schema.probabilities(output.logits)
    views = []
    for row in range(len(batch)):
        inner = batch.inner[row]
        weights = output.attention[row, inner].float().cpu()
        keys = None if batch.evidence is None else batch.evidence[row, inner].float().cpu()
        view = BagView(
            bag=int(batch.index[row]),
            label=schema.named_target(batch.target[row]),
            predicted=schema.named_prediction(probabilities[row]),
            probability=float(probabilities[row].max()),
            weights=weights.tolist(),
            keys=None if keys is None or keys.isnan().all() else keys.tolist(),
        )
        images = batch.inputs[row, inner].float().cpu()
        views.append((view, BagRow(view.caption, images, weights, None if view.keys is None else keys)))
    return views
