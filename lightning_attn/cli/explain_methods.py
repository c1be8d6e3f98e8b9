"""The methods of ``lightning explain`` by name, with what some of them need besides."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from lightning_attn import attribution
from lightning_attn.attribution import LAFA, MaskLRP, ReleasedMaskLRP, get_kernel
from lightning_attn.attribution.heads.heads_file import read_heads
from lightning_attn.attribution.lafa import Nearest
from lightning_attn.errors import InputError
from lightning_attn.explain import method_for
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.transformer.model import TransformerModel

#: Methods that need to be told which attention heads are important.
OF_HEADS: dict[str, Callable[[list[list[int]]], attribution.Attribution]] = {
    "mask_lrp": MaskLRP,
    "mask_lrp_released": ReleasedMaskLRP,
}

#: All that can be named.
NAMES: tuple[str, ...] = tuple(sorted([*attribution.METHODS, *OF_HEADS, "lafa"]))


def method_by_name(name: str, arguments: argparse.Namespace, network: AttentionNetwork) -> attribution.Attribution:
    """A method with its options.

    Args:
        name: One of :data:`NAMES`.
        arguments: Those of ``lightning explain``: ``heads``, ``neighbours``, ``kernel``, ``cutoff``, ``strength``.
        network: That is to be explained.

    Raises:
        InputError: There is no such method, or what it needs is missing or wrong.
    """
    if name in OF_HEADS:
        if arguments.heads is None:
            raise InputError(
                f"The method {name} needs the important attention heads: give a JSON file as --heads, which "
                'lightning-attn heads writes; or such as {"layers": [[0, 3], [], ...]}, one list a layer.'
            )
        of = network if isinstance(network, TransformerModel) else None  # others are refused by the method itself
        return OF_HEADS[name](read_heads(arguments.heads, of))
    if name not in NAMES:
        raise InputError(f"There is no attribution method {name!r}; the methods are {', '.join(NAMES)}.")
    if name != "lafa":
        return method_for(network, name)
    if arguments.neighbours is None:
        raise InputError(
            "The method lafa needs the neighbours of the texts: make an index of the training texts with "
            "lightning-attn index, and give its folder as --neighbours."
        )
    selection = Nearest(quantile=arguments.cutoff)
    return LAFA(arguments.neighbours, get_kernel(arguments.kernel), selection, arguments.strength)


def check_extras(methods: list[str], arguments: argparse.Namespace) -> None:
    """Refuse options of methods that are not asked for.

    Raises:
        InputError: There is one.
    """
    if arguments.neighbours is not None and "lafa" not in methods:
        raise InputError("--neighbours is for the method lafa: add it to --method, or leave --neighbours out.")
    if arguments.heads is not None and not OF_HEADS.keys() & set(methods):
        raise InputError("--heads is for the method mask_lrp: add it to --method, or leave --heads out.")
