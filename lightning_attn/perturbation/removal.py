"""Answering for many variants of a batch: the contract of the sweep, and the path that works for every network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_attn.types import Batch

if TYPE_CHECKING:
    from lightning_attn.networks.base import AttentionNetwork
    from lightning_attn.perturbation.sweep import Perturbation


class Removal(ABC):
    """What a network says of variants of a batch; :meth:`AttentionNetwork.removal` makes one for each sweep."""

    #: Whether variants of one example share work. The sweep then keeps them together instead of going by their lengths.
    shares: bool = False

    @abstractmethod
    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
        """Logits of R variants, shape ``(R, C)``; called in evaluation mode, without gradients.

        Args:
            batch: B examples without evidence, whose query has been read.
            examples: Which example each variant is of, shape ``(R,)``, int64.
            keep: True where the input stays as it is, shape ``(R, L)``; True on special positions and padding.
        """


class Reread(Removal):
    """The generic path: every variant is made and read from its first token to its last.

    Args:
        network: Any network.
        perturbation: Any perturbation.
    """

    def __init__(self, network: AttentionNetwork, perturbation: Perturbation) -> None:
        self.network = network
        self.perturbation = perturbation

    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
        """See :meth:`Removal.logits`."""
        variants = self.perturbation.apply(batch.select(examples), keep, self.network.schema)
        logits: Tensor = self.network(variants).logits
        return logits


def follows(thing: object, known: type, *methods: str) -> bool:
    """Whether a module or perturbation runs these methods as the class ``known`` has them, not overridden anywhere.

    A shortcut stands for code that it repeats in another order, so it may be taken only where that code would run.
    """
    return isinstance(thing, known) and all(
        getattr(type(thing), name) is getattr(known, name) and name not in vars(thing) for name in methods
    )


def hooked(module: nn.Module) -> bool:
    """Whether a forward hook is registered on the module or on one inside it: it may change what comes out."""
    everywhere: bool = nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    return everywhere or any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def distinct(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where each distinct number first stands, shape ``(U,)``, and which of them each number is, shape ``(N,)``."""
    ordered, order = keys.sort(stable=True)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=starts[1:])
    return order[starts], torch.empty_like(order).scatter_(0, order, starts.cumsum(0) - 1)
