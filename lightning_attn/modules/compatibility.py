"""Whether data, network and checkpoint fit together."""

from __future__ import annotations

from typing import Any

from lightning_attn.types import DataSchema, InputError


def is_plain(value: Any) -> bool:
    """Whether a value consists of what a checkpoint can hold without unpickling anything."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def check_same_data(network: DataSchema, data: DataSchema) -> None:
    """Compare what a network was made for with what the data are.

    Raises:
        InputError: They differ.
    """
    for name, known, given in (
        ("classes", network.num_classes, data.num_classes),
        ("class names", network.class_names, tuple(data.class_names)),
        ("multi_label", network.multi_label, data.multi_label),
        ("vocabulary size", network.vocabulary_size, data.vocabulary_size),
        ("number of default tokens", network.default_tokens, data.default_tokens),
        ("padding id", network.pad_id, data.pad_id),
        ("spans", network.spans, data.spans),
        ("vocabulary size of queries", network.query_vocabulary_size, data.query_vocabulary_size),
    ):
        if known != given:
            raise InputError(
                f"The data and the network do not fit: the network was made for {name} {known}, the data have {given}."
            )
