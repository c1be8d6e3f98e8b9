"""Whether data, network and checkpoint fit together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lightning_attn.errors import InputError, shown
from lightning_attn.types import DataSchema

if TYPE_CHECKING:
    from lightning_attn.networks.trained import TrainedNetwork


def is_plain(value: Any) -> bool:
    """Whether a value consists of what a checkpoint can hold without unpickling anything."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def check_weights(module: nn.Module, stored: Mapping[str, Any]) -> None:
    """See that stored weights are numbers of the kind of a module's own, which PyTorch would convert in silence.

    Names and shapes are what ``load_state_dict`` looks at itself.

    Raises:
        InputError: A tensor is of another kind: whole or complex numbers in place of floating-point ones, or the other
            way round.
    """
    # Not the state dict: what a layer adds to it, such as another network, may not have been read yet.
    for name, own in itertools.chain(module.named_parameters(), module.named_buffers()):
        value = stored.get(name)
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise InputError(f"The checkpoint has no tensor for {name}, but {shown(str(value))}.")
        if (own.is_floating_point(), own.is_complex()) != (value.is_floating_point(), value.is_complex()):
            raise InputError(f"The checkpoint has numbers of type {value.dtype} for {name}, which is {own.dtype}.")


def check_same_data(network: DataSchema, data: DataSchema) -> None:
    """Compare what a network was made for with what the data are.

    Raises:
        InputError: They differ.
    """
    for name, expected, actual in (
        ("classes", network.num_classes, data.num_classes),
        ("class names", network.class_names, tuple(data.class_names)),
        ("multi_label", network.multi_label, data.multi_label),
        ("vocabulary size", network.vocabulary_size, data.vocabulary_size),
        ("number of default tokens", network.default_tokens, data.default_tokens),
        ("padding id", network.pad_id, data.pad_id),
        ("spans", network.spans, data.spans),
        ("vocabulary size of queries", network.query_vocabulary_size, data.query_vocabulary_size),
        ("grid of patches", network.grid, data.grid),
    ):
        if expected != actual:
            raise InputError(
                f"The data and the network do not fit: the network was made for {name} {expected}, the data have "
                f"{actual}."
            )


def check_black_box(path: str, black_box: TrainedNetwork, schema: DataSchema, data: dict[str, Any]) -> None:
    """See that a black box reads the same data into the same classes, and that it predicts something.

    Args:
        path: Where it was read from, for messages.
        black_box: What was read.
        schema: Of the data.
        data: What describes them, as a data module exports it; empty if nobody knows.

    Raises:
        InputError: It does not.
    """
    theirs = black_box.network.schema
    for what, trained, actual in (
        ("classes", theirs.class_names, schema.class_names),
        ("number of classes", theirs.num_classes, schema.num_classes),
        ("vocabulary size", theirs.vocabulary_size, schema.vocabulary_size),
        ("instances of shape", theirs.feature_shape, schema.feature_shape),
        ("a grid of patches", theirs.grid, schema.grid),
    ):
        if trained != actual:
            raise InputError(
                f"The black box {path} was trained for {what} {trained}, but the data have {actual}; train it on the "
                "same data."
            )
    trained_words, words = _words(black_box.data.get("processor")), _words(data.get("processor"))
    if trained_words is not None and words is not None and trained_words != words:
        raise InputError(
            f"The black box {path} was trained with another vocabulary of the same size; train it on the same data."
        )
    if any(not tensor.isfinite().all() for tensor in black_box.network.state_dict().values()):
        raise InputError(
            f"The black box {path} holds NaN or infinity among its weights: its training diverged; train it again."
        )


def _words(processor: dict[str, Any] | None) -> Any:
    """What decides which id a word has, of what describes a processor of texts; lengths and the like do not."""
    while processor is not None and "processor" in processor:
        processor = processor["processor"]
    if processor is None:
        return None
    return processor.get("vocabulary", processor.get("tokenizer", processor))
