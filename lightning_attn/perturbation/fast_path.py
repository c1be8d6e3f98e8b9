"""Which networks and encoders have a fast path through the sweep: one that computes anew only what a removal changes.

A fast path is found by the type of the network, and by that of its encoder, and gives the logits of reading every
variant, but for rounding. It is taken only where the code that it stands for would run: a subclass that overrides a
method, a method exchanged on the object or a forward hook means that every variant is read instead.

A fast path for a network of your own, a :class:`VariantReader`, takes three lines; one for an encoder under attention
pooling, a :class:`KeyFastPath`, is registered in the same way with ``encoder_fast_path`` and gets the encoder alone::

    @network_fast_path.register(MyNetwork)
    def my_fast_path(network: MyNetwork, perturbation: Perturbation) -> VariantReader | None:
        return MyReader(network) if inherits_unchanged(network, MyNetwork, "encode", "classify", "forward") else None

None stands for "not here". A subclass finds what was registered for its parent: see :func:`inherits_unchanged`.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.encoders.base import Encoder
from lightning_attn.encoders.bilstm import BiLSTM
from lightning_attn.encoders.cnn import CNN
from lightning_attn.encoders.token_mlp import TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.networks.bags import BagNetwork
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.ensemble import AttentionEnsemble
from lightning_attn.networks.paired import PairedNetwork
from lightning_attn.networks.pooled import PooledNetwork
from lightning_attn.perturbation.bags import bag_reader
from lightning_attn.perturbation.bilstm import PrefixKeys
from lightning_attn.perturbation.cnn import WindowKeys
from lightning_attn.perturbation.keys import KeyFastPath, LocalKeys
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.perturbation.pooled import PooledReader, pooled_reader
from lightning_attn.perturbation.reader import FullReader, VariantReader, hooked, inherits_unchanged
from lightning_attn.types import Batch


def variant_reader(network: AttentionNetwork, perturbation: Perturbation) -> VariantReader:
    """How the sweep gets logits of variants: by the network's fast path, or by reading each from end to end.

    Args:
        network: Built network.
        perturbation: What happens to removed positions.

    Raises:
        InputError: The network has a ``removal`` method of release 0.1.0 that relies on that of its base class.
    """
    if not hasattr(type(network), "removal"):
        return network_fast_path(network, perturbation) or FullReader(network, perturbation)
    _warn_of_removal(network, "network_fast_path")
    try:
        reader: VariantReader = network.removal(perturbation)  # type: ignore[operator]
    except AttributeError as error:
        if error.name != "removal":
            raise
        raise InputError(
            f"{type(network).__name__}.removal calls that of its base class, which is gone: return a FullReader there, "
            "or register the fast path with lightning_attn.perturbation.network_fast_path."
        ) from error
    return reader


@functools.singledispatch
def network_fast_path(network: AttentionNetwork, perturbation: Perturbation) -> VariantReader | None:
    """The fast path of a network of this type; None: every variant has to be read."""
    return None


@network_fast_path.register(PooledNetwork)
def _pooled(network: PooledNetwork, perturbation: Perturbation) -> PooledReader | None:
    def classifier(pooled: Tensor, query: Tensor | None) -> Tensor:
        return network.head(pooled)  # type: ignore[no-any-return]

    if network.scaling is not None:
        return None
    return pooled_reader(network, PooledNetwork, _keys(network.encoder), perturbation, classifier)


@network_fast_path.register(PairedNetwork)
def _paired(network: PairedNetwork, perturbation: Perturbation) -> PooledReader | None:
    return pooled_reader(network, PairedNetwork, _keys(network.encoder), perturbation, network.head)


network_fast_path.register(BagNetwork)(bag_reader)


@network_fast_path.register(AttentionEnsemble)
def _ensemble(network: AttentionEnsemble, perturbation: Perturbation) -> EnsembleReader | None:
    methods = ("embed", "encode", "classify", "forward", "read_query")
    if hooked(network) or not inherits_unchanged(network, AttentionEnsemble, *methods):
        return None
    return EnsembleReader(network, perturbation)


class EnsembleReader(VariantReader):
    """What the members say of variants, each on its own fast path if it has one; their attention is not needed.

    Args:
        network: An ensemble that runs its own methods.
        perturbation: What happens to removed positions.
    """

    def __init__(self, network: AttentionEnsemble, perturbation: Perturbation) -> None:
        self.network = network
        self.members = [variant_reader(member, perturbation) for member in network.networks]
        self.shares = any(member.shares for member in self.members)

    @override
    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
        logits = []
        for member, (_, part) in zip(self.members, self.network.each_member(batch), strict=True):
            own = member.logits(part, examples, keep)
            # Of half precision under autocast: too coarse for the logarithms that combine them.
            logits.append(own.to(torch.promote_types(own.dtype, torch.float32)))
        return self.network.combination.logits(torch.stack(logits, dim=-1), self.network.schema.multi_label)


@functools.singledispatch
def encoder_fast_path(encoder: nn.Module) -> KeyFastPath | None:
    """Keys of variants for less work than :meth:`Encoder.contextualise`; None: not with an encoder of this type."""
    return None


@encoder_fast_path.register(TokenMLP)
def _token_mlp(encoder: TokenMLP) -> LocalKeys | None:
    return LocalKeys(encoder.contextualise) if _runs_as(encoder, TokenMLP) else None


@encoder_fast_path.register(BiLSTM)
def _bilstm(encoder: BiLSTM) -> PrefixKeys | None:
    exact = _runs_as(encoder, BiLSTM) and PrefixKeys.supports(encoder.lstm)
    return PrefixKeys(encoder.lstm) if exact else None


@encoder_fast_path.register(CNN)
def _cnn(encoder: CNN) -> WindowKeys | None:
    exact = _runs_as(encoder, CNN) and WindowKeys.supports(encoder.convolutions)
    return WindowKeys(encoder.convolutions) if exact else None


def _runs_as(encoder: Encoder, base: type[Encoder]) -> bool:
    return inherits_unchanged(encoder, base, "embed", "contextualise", "forward")


def _keys(encoder: nn.Module) -> KeyFastPath | None:
    if not hasattr(type(encoder), "removal"):
        return encoder_fast_path(encoder)
    _warn_of_removal(encoder, "encoder_fast_path")
    keys: KeyFastPath | None = encoder.removal()  # type: ignore[operator]
    return keys


def _warn_of_removal(module: nn.Module, registry: str) -> None:
    """Say that a class offers its fast path by a method, as in release 0.1.0, and what to do instead."""
    name = type(module).__name__
    warnings.warn(
        f"{name}.removal is deprecated: decorate it with @lightning_attn.perturbation.{registry}.register({name}).",
        DeprecationWarning,
        stacklevel=3,
    )
