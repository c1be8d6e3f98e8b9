"""Several mitigations at once."""

from __future__ import annotations

from torch import Tensor, nn
from torchmetrics import Metric
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import Mitigation, Phase
from lightning_attn.types import AttentionOutput, Batch, DataSchema, MitigatedNetwork


class Compose(Mitigation):
    """Applies mitigations one after the other.

    While one of them is in the phase ``random``, only those that are in it act: pretraining under random attention is
    unweighted, and an estimator does not learn from a scorer that has not started. But what the network
    reads is changed in every phase: values that are pretrained and then frozen must know replaced tokens too.

    Args:
        mitigations: In the order in which they see the batch and the attention.

    Raises:
        InputError: The list is empty.
    """

    def __init__(self, mitigations: list[Mitigation]) -> None:
        if not mitigations:
            raise InputError("Compose needs at least one mitigation; use NoMitigation to switch mitigation off.")
        super().__init__()
        self.mitigations: list[Mitigation] = nn.ModuleList(mitigations)  # type: ignore[assignment]

    @property
    def freezes(self) -> bool:  # type: ignore[override]
        """Whether any of them freezes parameters."""
        return any(mitigation.freezes for mitigation in self.mitigations)

    @property
    def random_epochs(self) -> int:  # type: ignore[override]
        """The most that any of them asks for."""
        return max(mitigation.random_epochs for mitigation in self.mitigations)

    @property
    def phase(self) -> Phase:
        """``random`` while any of them is in it."""
        return "random" if any(mitigation.phase == "random" for mitigation in self.mitigations) else "learn"

    @property
    def active(self) -> list[Mitigation]:
        """Those that act in the present phase."""
        return [mitigation for mitigation in self.mitigations if mitigation.phase == self.phase]

    @override
    def build(self, schema: DataSchema) -> None:
        for mitigation in self.mitigations:
            mitigation.build(schema)

    def perturb(self, batch: Batch) -> Batch:
        """Each changes what the one before left, whatever the phase."""
        for mitigation in self.mitigations:
            batch = mitigation.perturb(batch)
        return batch

    def observe(self, attention: Tensor, batch: Batch) -> Tensor:
        """Each changes what the one before left, shape ``(B, L)``."""
        for mitigation in self.active:
            attention = mitigation.observe(attention, batch)
        return attention

    def weigh(self, attention: Tensor, batch: Batch) -> Tensor | None:
        """Product of the weights, or None if none weighs."""
        product: Tensor | None = None
        for mitigation in self.active:
            weight = mitigation.weigh(attention, batch)
            if weight is not None:
                product = weight if product is None else product * weight
        return product

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: MitigatedNetwork) -> Tensor | None:
        """Sum of the losses, or None if none adds any."""
        losses = [mitigation.auxiliary_loss(output, batch, network) for mitigation in self.active]
        present = [loss for loss in losses if loss is not None]
        return sum(present[1:], start=present[0]) if present else None

    def lr_scales(self, network: MitigatedNetwork, epoch: int) -> dict[nn.Module, float]:
        """The lowest rate that any of them asks for."""
        rates: dict[nn.Module, float] = {}
        for mitigation in self.mitigations:
            for module, rate in mitigation.lr_scales(network, epoch).items():
                rates[module] = min(rate, rates.get(module, rate))
        return rates

    def metrics(self) -> dict[str, Metric]:
        """The metrics of all; a later mitigation wins a shared name."""
        return {name: metric for mitigation in self.mitigations for name, metric in mitigation.metrics().items()}
