"""Whatever is to be explained, as a network that can be asked: `open_black_box`, `OpaqueNetwork`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attention.scorers import UniformAttention
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import check_black_box
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.networks.transformer.classifier import TransformerNetwork
from lightning_attn.types import AttentionOutput, Batch, DataSchema


class OpaqueNetwork(AttentionNetwork):
    """Any function from batches to logits, asked and never looked into; its weights are even, and say nothing.

    It can be explained by what it says of changed inputs: as a black box, by removals, by a trained selection.

    Example:
        >>> network = OpaqueNetwork(lambda batch: my_model(batch.inputs), schema)  # doctest: +SKIP

    Args:
        function: From B padded examples to logits, shape ``(B, C)``; a module is moved and evaluated with the network.
        schema: What its inputs and classes are.
    """

    attention: UniformAttention

    def __init__(self, function: Callable[[Batch], Tensor], schema: DataSchema) -> None:
        super().__init__()
        self.attention = UniformAttention()
        # A module among them is registered by torch, and moves along.
        self.function: Any = function
        self.build(schema)

    @override
    def make_layers(self, schema: DataSchema) -> None:
        self.attention.make_layers(1)

    @override
    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, attention: Tensor | None = None
    ) -> AttentionOutput:
        """Its logits, and even weights.

        Raises:
            InputError: Embeddings or attention are given, which it does not have; it gives no logits of its classes, or
                probabilities in their place.
        """
        if embeddings is not None or attention is not None:
            raise self._opaque()
        batch = batch.padded()
        logits = self.function(batch)
        self._check(logits, len(batch))
        keys = torch.zeros(*batch.valid.shape, 1, device=batch.device)
        scores, learned, _ = self.attention(keys, batch)
        return AttentionOutput(logits, learned, learned, scores, keys)

    @override
    def embed(self, batch: Batch) -> Tensor:
        raise self._opaque()

    @override
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        raise self._opaque()

    @override
    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        raise self._opaque()

    def _opaque(self) -> InputError:
        return InputError(
            "A black box that is a mere function has no embeddings and no attention to look at: take a method that "
            "only asks it, such as occlusion or a trained selection."
        )

    def _check(self, logits: Any, count: int) -> None:
        classes = self.schema.num_classes
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if shape != (count, classes) or not logits.is_floating_point():
            raise InputError(
                f"The black box gives {shape} where logits of shape ({count}, {classes}), one per example and class, "
                "are expected."
            )
        whole = logits.detach()
        sums = whole.sum(dim=-1)
        if count and (whole >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise InputError(
                "The black box gives probabilities where logits are expected: return its logits, or the logarithm of "
                "what it gives."
            )


def open_black_box(black_box: Any, schema: DataSchema, data: dict[str, Any]) -> AttentionNetwork:
    """The network to explain, in evaluation mode and without gradients.

    Args:
        black_box: A checkpoint of ``lightning fit``; the name or folder of a Hugging Face classifier whose tokenizer
            split the data; a network at hand; a classifier of ``transformers``; any module or function from
            :class:`Batch` to logits.
        schema: Of the data.
        data: What describes them, as a data module exports it.

    Raises:
        InputError: There is no such thing; it was made for other data; its weights hold NaN.
    """
    if isinstance(black_box, (str, Path)):
        path = Path(black_box).expanduser()
        if path.is_file() or path.suffix == ".ckpt":
            trained = TrainedNetwork.read(path)
            check_black_box(str(black_box), trained, schema, data)
            return trained.network
        return _checked(TransformerNetwork.load(str(black_box)), str(black_box), schema)
    if isinstance(black_box, AttentionNetwork):
        return _checked(black_box, type(black_box).__name__, schema)
    if _is_transformer(black_box):
        return _checked(TransformerNetwork.from_model(black_box), type(black_box).__name__, schema)
    if callable(black_box):
        return OpaqueNetwork(black_box, schema).eval().requires_grad_(False)
    raise InputError(
        f"A black box is a checkpoint, a Hugging Face classifier, a network, or a function from Batch to logits, not "
        f"{type(black_box).__name__}."
    )


def _is_transformer(value: object) -> bool:
    return any(kind.__module__.startswith("transformers.") for kind in type(value).__mro__)


def _checked(network: AttentionNetwork, name: str, schema: DataSchema) -> AttentionNetwork:
    if not network.built:
        raise InputError(f"The black box {name} has no layers yet: train it, or call build(schema) and load weights.")
    # Names of classes are the model's own business; their number is not. A Hugging Face model may have room for more
    # tokens than its tokenizer knows.
    ours, theirs = schema, network.schema
    room = isinstance(network, TransformerNetwork) and (ours.vocabulary_size or 0) <= (theirs.vocabulary_size or 0)
    for what, made_for, actual in (
        ("classes", theirs.num_classes, ours.num_classes),
        ("several labels per example", theirs.multi_label, ours.multi_label),
        ("a vocabulary of size", None if room else theirs.vocabulary_size, None if room else ours.vocabulary_size),
        ("features of shape", theirs.feature_shape, ours.feature_shape),
        ("a grid of patches", theirs.grid, ours.grid),
    ):
        if made_for != actual:
            raise InputError(f"The black box {name} is for {what} {made_for}, but the data have {actual}.")
    if any(not tensor.isfinite().all() for tensor in network.state_dict().values() if isinstance(tensor, Tensor)):
        raise InputError(f"The black box {name} holds NaN or infinity among its weights; train it again.")
    return network.eval().requires_grad_(False)
