"""Attention weights, and controls that know nothing of what the network has learned: what every method has to beat."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.base import Attribution, OnePassAttribution, register
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import seeded, uniform
from lightning_attn.types import AttentionOutput, Batch


@register("attention")
class AttentionWeights(OnePassAttribution):
    """The weights that the classifier used, in [0, 1]; the same for every class."""

    @override
    def score_with_output(
        self, network: AttentionNetwork, batch: Batch, target: Tensor | None
    ) -> tuple[Tensor, AttentionOutput]:
        with torch.no_grad(), evaluating(network):
            output = network(batch)
        return output.attention, output


@register("random")
class Random(Attribution):
    """Uniform numbers in (0, 1) drawn by ``Batch.index``: an example has the same ones in any batch and process.

    Args:
        seed: Another seed gives other numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @override
    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        return uniform(batch.index, batch.valid.shape[1], self.seed)


@register("uniform")
class Uniform(Attribution):
    """1 everywhere."""

    @override
    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        return torch.ones(batch.valid.shape, device=batch.device)


@register("untrained")
class Untrained(Attribution):
    """Attention of the same network before it has learned anything: what the architecture alone brings.

    Args:
        seed: Another seed gives other weights of the network.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`; weights that sum to 1.

        Raises:
            InputError: The network has parameters of its own that no layer of PyTorch can draw anew.
        """
        fresh = untrained(network, self.seed)
        with torch.no_grad(), evaluating(fresh):
            return fresh(batch).attention  # type: ignore[no-any-return]


def untrained(network: AttentionNetwork, seed: int = 0) -> AttentionNetwork:
    """A copy of a network with every layer drawn anew.

    Args:
        network: Stays as it is.
        seed: Decides the draw; the global random state is left alone.

    Raises:
        InputError: The network has parameters of its own that no layer of PyTorch can draw anew.
    """
    fresh = copy.deepcopy(network)
    kept = set()
    device = next((parameter.device for parameter in fresh.parameters()), torch.device("cpu"))
    with seeded(seed, device):
        for module in fresh.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
                kept |= {id(parameter) for parameter in module.parameters(recurse=False)}
    for name, parameter in fresh.named_inference_parameters():
        if id(parameter) not in kept:
            raise InputError(
                f"{type(network).__name__} cannot be set back to its start: {name} belongs to a module without "
                "reset_parameters(); write that method, or leave the control 'untrained' out."
            )
    return fresh
