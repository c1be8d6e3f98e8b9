"""Models that share the parts of another: the layers below a certain one, the rest, all with some parts exchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Module = TypeVar("Module", bound=nn.Module)

#: Where the stack of layers may stand in a base model, and the name of its list of layers.
_STACKS = (("encoder", "layer"), ("transformer", "layer"), ("encoder", "albert_layer_groups"))
#: What stands between embeddings and layers, in the base model or in its stack.
_PROJECTIONS = ("embeddings_project", "embedding_hidden_mapping_in")


def has_known_parts(model: PreTrainedModel) -> bool:
    """Whether the model is built as :func:`below` and :func:`above` expect it."""
    base = _base(model)
    return hasattr(base, "embeddings") and _place(base) is not None


def below(model: PreTrainedModel, layer: int) -> nn.Module:
    """The base model up to a layer, without it: ``last_hidden_state`` is what the layer reads.

    Modules are shared, none is copied; make it when it is needed and do not keep it, for the model may change.

    Args:
        model: A classifier.
        layer: From 0; with 0 nothing but the embeddings is left.
    """
    base = _base(model)
    stack = _part(base, 0, layer)
    changed: dict[str, nn.Module | None] = {_stack_name(base): stack}
    if getattr(base, "pooler", None) is not None:
        changed["pooler"] = None
    return _twin(base, changed)


def above(model: PreTrainedModel, layer: int) -> nn.Module:
    """The classifier from a layer on: ``inputs_embeds`` is what the layer reads; see :func:`below`.

    Nothing in it runs a second time for its gradients (gradient checkpointing).
    """
    base = _base(model)
    stack = _part(base, layer, _depth(base), once=True)
    changed: dict[str, nn.Module | None] = {"embeddings": _PassThrough()}
    for name in _PROJECTIONS:
        if hasattr(base, name):
            changed[name] = nn.Identity()
        if hasattr(stack, name):
            stack = _twin(stack, {name: nn.Identity()})
    upper = _twin(base, {**changed, _stack_name(base): stack})
    return _twin(cast(nn.Module, model), {model.base_model_prefix: upper})


def without(module: nn.Module, left_out: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest parts of a module that hold nothing of what is left out."""
    if not left_out.intersection(module.modules()):
        yield module
    elif module not in left_out:
        for part in module.children():
            yield from without(part, left_out)


def exchanged(module: Module, exchange: Callable[[nn.Module], nn.Module | None]) -> Module:
    """The module with some of its parts exchanged; the module itself stays as it is, and all other parts are shared.

    Args:
        module: A network or a model.
        exchange: From a part to what stands in its place; None for a part that stays.
    """
    changed: dict[str, nn.Module | None] = {}
    for name, part in module._modules.items():
        if part is not None:
            other = exchange(part) or exchanged(part, exchange)
            if other is not part:
                changed[name] = other
    return _twin(module, changed) if changed else module


class _PassThrough(nn.Module):
    """In the place of embeddings: returns its input."""

    def forward(self, input_ids: None = None, inputs_embeds: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        assert inputs_embeds is not None
        return inputs_embeds


def _base(model: PreTrainedModel) -> nn.Module:
    return cast(nn.Module, model.base_model)


def _place(base: nn.Module) -> tuple[str, str] | None:
    for stack, layers in _STACKS:
        if isinstance(getattr(getattr(base, stack, None), layers, None), nn.ModuleList):
            return stack, layers
    return None


def _stack_name(base: nn.Module) -> str:
    place = _place(base)
    assert place is not None
    return place[0]


def _depth(base: nn.Module) -> int:
    return int(cast(Any, base).config.num_hidden_layers)


def _part(base: nn.Module, first: int, end: int, once: bool = False) -> nn.Module:
    """The stack with the layers from ``first`` to below ``end`` only, without gradient checkpointing if ``once``."""
    place = _place(base)
    assert place is not None
    stack, name = cast(nn.Module, getattr(base, place[0])), place[1]
    layers = cast(nn.ModuleList, getattr(stack, name))
    if name != "albert_layer_groups":
        return _twin(
            stack, {name: nn.ModuleList([_once(layer) if once else layer for layer in list(layers)[first:end]])}
        )
    # ALBERT runs each of its groups several times in a row; here every layer is a group of its own.
    config: Any = copy.copy(stack.config)
    depth, groups = config.num_hidden_layers, config.num_hidden_groups
    own_groups = [layers[int(number / (depth / groups))] for number in range(first, end)]
    config.num_hidden_layers = config.num_hidden_groups = end - first
    twin = _twin(stack, {name: nn.ModuleList(own_groups)})
    twin.__dict__["config"] = config
    return twin


def _once(layer: nn.Module) -> nn.Module:
    if not getattr(layer, "gradient_checkpointing", False):
        return layer
    twin = _twin(layer, {})
    twin.__dict__["gradient_checkpointing"] = False
    return twin


def _twin(module: Module, changed: dict[str, nn.Module | None]) -> Module:
    """Another module of the same class with the same parameters, buffers and parts, some of them exchanged."""
    twin: Module = module.__new__(type(module))
    twin.__dict__ = dict(module.__dict__)
    twin.__dict__["_modules"] = {**module._modules, **changed}
    return twin
