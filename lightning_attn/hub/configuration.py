"""What a stored configuration of a pretrained model may say: `stored_values`, `make_configuration`, `check_size`."""

from __future__ import annotations

import copy
import inspect
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from lightning_attn.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Keys that make transformers fetch or import something, read other files or exchange parts of the model.
_CODE = {
    *("quantization_config", "compression_config", "transformers_weights", "configuration_files", "gguf_file"),
    *("fusion_config", "kernel_config", "use_kernels", "extra_files", "extra_config_files", "custom_pipelines"),
    *("backbone", "backbone_config", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone"),
    *("trust_remote_code", "device_map", "distributed_config", "tp_plan"),
}
#: Keys that choose how attention or experts are computed: by a kernel that is fetched, unless it is one of PyTorch's.
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_BUILT_IN = (None, "eager", "sdpa")
#: Keys that count parts; made of Python objects, they cost memory before any tensor does.
_COUNTS = re.compile("layer|block|group|depth|expert|stage|head|label")
_MOST_PARTS = 10_000  # layers or attention heads; the largest models have about a hundred
_MOST_LABELS = 1_000_000
_MOST_MODULES = 100_000  # as many as 6,000 layers of BERT


def stored_values(name_or_path: str) -> dict[str, Any]:
    """The content of ``config.json``, plain values; nothing is made of it, and its sizes are possible ones.

    Args:
        name_or_path: Name of a model on the Hub, or a folder.

    Raises:
        InputError: It has an absurd size.
        Exception: Whatever transformers raises where there is no such file, or where it is damaged.
    """
    from transformers import PretrainedConfig

    values, _ = PretrainedConfig.get_config_dict(name_or_path)
    if not isinstance(values, dict):
        raise ValueError("config.json holds no object")
    _check_counts(values, f"config.json of {name_or_path!r}")
    return values


def make_configuration(values: Mapping[str, Any], name: str, from_file: bool) -> PretrainedConfig:
    """The configuration object of an encoder, from plain values that anybody may have written.

    What would fetch or run code, name other files, or shadow what the class itself defines never reaches transformers.

    Args:
        values: As in ``config.json``; ``model_type`` is one that transformers knows.
        name: Of the model, for messages and as its ``name_or_path``.
        from_file: Whether the values are those of ``config.json`` of a model that the user named: then a key without
            which the model would be another one is refused. In a checkpoint, which holds all weights, it is left out.

    Raises:
        InputError: A key is refused; or a size is absurd.
        Exception: Whatever transformers raises of values that have the wrong type.
    """
    from transformers import CONFIG_MAPPING

    place = f"config.json of {name!r}" if from_file else f"The stored configuration of {name!r}"
    _check_counts(values, place)
    kind = CONFIG_MAPPING[values["model_type"]]
    if nested := sorted(key for key in kind.sub_configs if values.get(key)):
        raise InputError(f"{place} holds another configuration ({nested[0]}): models of several parts are not read.")
    if from_file:
        _check_code(values, place)
    arguments = _arguments(kind)
    kept = {key: copy.deepcopy(value) for key, value in values.items() if _stays(key, value, kind, arguments)}
    for key in _KERNELS:
        if key in values and values[key] in _BUILT_IN and not isinstance(values[key], Mapping):
            kept[key.lstrip("_")] = values[key]
    return kind(**kept, **({"name_or_path": name} if from_file else {}))


def find_adapter(name_or_path: str) -> bool:
    """Whether there is an adapter beside a model, or in its place: it may name weights of somebody else's."""
    from transformers.utils import find_adapter_config_file

    return find_adapter_config_file(name_or_path) is not None


def check_size(auto_class: Any, config: PretrainedConfig, name: str) -> None:
    """See that a model fits into this machine, before memory is taken: it is made without storage first.

    Args:
        auto_class: Such as ``transformers.AutoModel``.
        config: The configuration.
        name: Of the model, for messages.

    Raises:
        InputError: It has more modules or numbers than can be had.
        Exception: Whatever transformers raises of values that do not go together.
    """
    with _counted(name), torch.device("meta"):
        auto_class.from_config(copy.deepcopy(config))


@contextmanager
def _counted(name: str) -> Iterator[None]:
    """Stop at the module or tensor with which a model becomes too large."""
    modules, size, most = 0, 0, _memory()

    def count_module(*_: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            raise InputError(f"The configuration of {name!r} describes a model of over {_MOST_MODULES:,} modules.")

    def count_tensor(module: nn.Module, label: str, tensor: torch.Tensor | None) -> None:
        nonlocal size
        size += 0 if tensor is None else tensor.numel() * tensor.element_size()
        if size > most:
            raise InputError(
                f"The configuration of {name!r} describes a model of more than {size / 1e9:,.0f} GB, and this machine "
                f"has {most / 1e9:,.0f} GB of memory."
            )

    handles = [
        hooks.register_module_module_registration_hook(count_module),
        hooks.register_module_parameter_registration_hook(count_tensor),
        hooks.register_module_buffer_registration_hook(count_tensor),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _memory() -> int:
    """Bytes of memory of this machine; where nobody tells, more than any has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return 1 << 42


def _check_counts(values: Mapping[str, Any], place: str) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _check_counts(value, place)
        if isinstance(value, (int, float)) and isinstance(key, str) and _COUNTS.search(key):
            most = _MOST_LABELS if "label" in key else _MOST_PARTS
            if value > most:
                raise InputError(f"{place} has {value:.3g} for {key}, and no model has more than {most:,}.")


def _check_code(values: Mapping[str, Any], place: str) -> None:
    """Refuse what the model needs and nobody gets here."""
    for key in _KERNELS:
        if (kernel := values.get(key)) is not None and not (isinstance(kernel, str) and kernel.isidentifier()):
            raise InputError(
                f"{place} asks for {kernel!r:.60} as {key}, a kernel that would be fetched and run, which no file "
                'decides here: put "sdpa" there.'
            )
    for key in sorted(_CODE.intersection(values)):
        if values[key]:
            raise InputError(
                f"{place} has a {key}, by which transformers would load other code or other weights than those of a "
                f"plain {values['model_type']} model: take a model that was saved without it."
            )
    if values.get("auto_map"):
        warnings.warn(
            f"{place} names code of its own (auto_map), which is never run: the {values['model_type']} model of "
            "transformers is used.",
            stacklevel=4,
        )


def _arguments(kind: type[PretrainedConfig]) -> set[str]:
    """What a configuration class takes by name."""
    named = {
        name
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
        for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return (named | {*kind.attribute_map, "num_labels", "torch_dtype", "output_attentions", "per_layer_config"}) - {
        "self"
    }


def _stays(key: Any, value: Any, kind: type[PretrainedConfig], arguments: set[str]) -> bool:
    """Whether a key may reach transformers: an argument of the class, or a plain value for a model to look up.

    Several models (DeBERTa) look up values that their configuration class does not list.
    """
    if not isinstance(key, str) or key.startswith("_") or key in _CODE or key in (*_KERNELS, "auto_map", "torchscript"):
        return False
    if key in arguments:
        return key not in ("name_or_path", "model_type")
    items = value if isinstance(value, (list, tuple)) else [value]
    plain = all(item is None or isinstance(item, (bool, int, float, str)) for item in items)
    return plain and not hasattr(kind, key)
