"""Classifiers of the Hugging Face Hub: `load_classifier`, and what their classes are: `class_order`, `own_schema`."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, cast

import torch

from lightning_attn.errors import InputError
from lightning_attn.hub.configuration import check_size, stored_values
from lightning_attn.hub.models import HubModel
from lightning_attn.types import DataSchema

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_classifier(network: HubModel, config: PretrainedConfig, schema: DataSchema) -> PreTrainedModel:
    """The model of a configuration, with the weights of ``name_or_path`` unless the network has a ``config``.

    Args:
        network: Says what to load.
        config: Its configuration.
        schema: What the data are: a model without a classifier gets a new one for their classes.

    Raises:
        InputError: There are no such weights, some are missing, or they are for other classes.
    """
    from transformers import AutoModelForSequenceClassification as Classifier

    if network.config is None and config.num_labels != schema.num_classes:
        config.num_labels = schema.num_classes
    with network._loading():
        check_size(Classifier, config, network.name_or_path)
        if network.config is not None:
            return cast("PreTrainedModel", Classifier.from_config(config))
        model, info = Classifier.from_pretrained(
            network.name_or_path,
            config=config,
            dtype=torch.float32,
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    if info["mismatched_keys"]:
        raise InputError(
            f"{network.name_or_path!r} does not fit: the data have {schema.num_classes} classes, and the sizes of "
            f"{sorted(str(key[0]) for key in info['mismatched_keys'])[0]} are others; take the pretrained model "
            "without a classifier."
        )
    _check_missing(network, model, info["missing_keys"])
    if network.new_head and schema.class_names:
        # A new classifier: from now on its classes are those of the data.
        model.config.id2label = dict(enumerate(schema.class_names))
        model.config.label2id = {name: number for number, name in enumerate(schema.class_names)}
    return cast("PreTrainedModel", model)


def load_answerer(network: HubModel, config: PretrainedConfig) -> PreTrainedModel:
    """The model of a configuration that gives every position two logits: here an answer begins, here it ends.

    Args:
        network: Says what to load; with a ``config`` the weights start at random.
        config: Its configuration.

    Raises:
        InputError: There are no such weights, some are missing, or models of this kind answer no questions.
    """
    from transformers import AutoModelForQuestionAnswering as Answerer

    config.num_labels = 2
    with network._loading():
        check_size(Answerer, config, network.name_or_path)
        if network.config is not None:
            return cast("PreTrainedModel", Answerer.from_config(config))
        model, info = Answerer.from_pretrained(
            network.name_or_path,
            config=config,
            dtype=torch.float32,
            weights_only=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    _check_missing(network, model, info["missing_keys"])
    return cast("PreTrainedModel", model)


def _check_missing(network: HubModel, model: PreTrainedModel, keys: Collection[str]) -> None:
    """Weights that were not there may be those above the encoder alone, and a pooler's, which is new then."""
    body = f"{model.base_model_prefix}."
    if missing := sorted(name for name in keys if name.startswith(body) and ".pooler." not in name):
        raise InputError(f"{network.name_or_path!r} lacks weights of its model: those of {', '.join(missing[:3])}.")
    network.new_head = any(not name.startswith(body) for name in keys)


def architectures(name_or_path: str) -> list[str]:
    """What a model of Hugging Face says of itself, such as ``BertForSequenceClassification``; empty if it does not."""
    try:
        named = stored_values(name_or_path).get("architectures")
    except Exception:  # whoever loads it says why
        return []
    return [str(name) for name in named] if isinstance(named, list) else []


def own_schema(name: str, config: PretrainedConfig) -> DataSchema:
    """What a model's configuration says of its classes and of its vocabulary.

    Args:
        name: Of the model, for messages.
        config: Its configuration.

    Raises:
        InputError: The model gives a number, not classes; or its classes have no names.
    """
    multi_label = config.problem_type == "multi_label_classification"
    if config.problem_type == "regression" or (config.num_labels < 2 and not multi_label):
        raise InputError(
            f"{name!r} gives {config.num_labels} number{'s' * (config.num_labels > 1)} (problem_type "
            f"{config.problem_type}), no probabilities of two or more classes, which is what is explained here."
        )
    return DataSchema(
        num_classes=config.num_labels,
        class_names=tuple(class_names(name, config)),
        multi_label=multi_label,
        vocabulary_size=config.vocab_size,
        pad_id=config.pad_token_id or 0,
    )


def class_names(name: str, config: PretrainedConfig) -> list[str]:
    """What a model calls its classes, in the order of its outputs; equal names get their numbers.

    Raises:
        InputError: The configuration names other outputs than there are.
    """
    expected = list(range(config.num_labels))
    if sorted(config.id2label) != expected:
        raise InputError(
            f'"id2label" in config.json of {name!r} names the outputs {", ".join(map(str, sorted(config.id2label)))}; '
            f"there are {config.num_labels}, numbered from 0."
        )
    names = [str(config.id2label[number]) for number in expected]
    return [f"{one} ({number})" if names.count(one) > 1 else one for number, one in enumerate(names)]


def class_order(name: str, config: PretrainedConfig, schema: DataSchema) -> list[int] | None:
    """Which output of the model belongs to each class of the data; None: they stand in the same order.

    Args:
        name: Of the model, for messages.
        config: Its configuration.
        schema: What the data are.

    Raises:
        InputError: The model has another number of classes.
    """
    if config.num_labels != schema.num_classes:
        raise InputError(f"{name!r} has {config.num_labels} classes and the data have {schema.num_classes}.")
    theirs = [label.lower() for label in class_names(name, config)]
    ours = [label.lower() for label in schema.class_names]
    if len(set(theirs)) == len(theirs) and sorted(theirs) == sorted(ours):
        order = [theirs.index(label) for label in ours]
        return None if order == sorted(order) else order
    if ours and not any(label.startswith("label_") for label in theirs):
        warnings.warn(
            f"{name!r} calls its classes {', '.join(theirs)} and the data {', '.join(ours)}: they are "
            "taken in this order; look at the accuracy.",
            stacklevel=2,
        )
    return None
