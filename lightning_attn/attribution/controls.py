"""Scores that know nothing of what the network has learned: what every other score has to beat."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import seeded
from lightning_attn.types import Batch


@register("uniform")
class Uniform(Attribution):
    """The same score everywhere."""

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`; 1."""
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
