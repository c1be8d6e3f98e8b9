"""Reading many variants of a batch: the contract of the sweep, and the reader that works for every network."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.types import Batch


class VariantReader(ABC):
    """What a network says of variants of a batch; each sweep asks :func:`variant_reader` for one."""

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


class FullReader(VariantReader):
    """Makes every variant and reads it from its first token to its last.

    Args:
        network: Any network.
        perturbation: Any perturbation.
    """

    def __init__(self, network: AttentionNetwork, perturbation: Perturbation) -> None:
        self.network = network
        self.perturbation = perturbation

    @override
    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
        variants = self.perturbation.apply(batch.select(examples), keep, self.network.schema)
        logits: Tensor = self.network(variants).logits
        return logits


def inherits_unchanged(instance: object, base: type, *methods: str) -> bool:
    """Whether a module or perturbation runs these methods as the class ``base`` has them, not overridden anywhere.

    A fast path stands for code that it repeats in another order, so it may be taken only where that code would run.
    """
    return isinstance(instance, base) and all(
        getattr(type(instance), name) is getattr(base, name) and name not in vars(instance) for name in methods
    )


def hooked(module: nn.Module) -> bool:
    """Whether a forward hook is registered on the module or on one inside it: it may change what comes out."""
    everywhere: bool = nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    return everywhere or any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
