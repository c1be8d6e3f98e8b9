"""What a mitigation may do to training: the five hooks of `Mitigation`, and `NoMitigation`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torchmetrics import Metric

from lightning_attn.types import AttentionOutput, Batch, DataSchema

if TYPE_CHECKING:  # the network owns the attention layer, which owns the mitigation
    from lightning_attn.networks.base import AttentionNetwork


class Mitigation(nn.Module):
    """A way to keep label information out of the attention weights while training. The base class changes nothing.

    The attention layer owns it, so its state is in the checkpoint. In evaluation a mitigation is the identity: nothing
    calls the hooks then.
    """

    @property
    def phase(self) -> str:
        """Name of the stage that training is in: ``random`` while attention is drawn at random, else ``learn``."""
        return "learn"

    def build(self, schema: DataSchema) -> None:
        """Make layers whose size depends on the data; called before weights are loaded."""

    def perturb(self, batch: Batch) -> Batch:
        """What the network reads while training."""
        return batch

    def observe(self, attention: Tensor, batch: Batch) -> Tensor:
        """What the head sees while training in place of the scorer's weights, shape ``(B, L)``."""
        return attention

    def weigh(self, attention: Tensor, batch: Batch) -> Tensor | None:
        """Weight of each example in the loss, shape ``(B,)``, mean 1, no gradient; None weighs all alike."""
        return None

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: AttentionNetwork) -> Tensor | None:
        """A scalar added to the loss, None for nothing."""
        return None

    def trainable(self, network: AttentionNetwork, epoch: int) -> Iterable[nn.Parameter] | None:
        """The parameters that learn in this epoch, None for all. Called at the start of every training epoch."""
        return None

    def frozen_modules(self, network: AttentionNetwork) -> list[nn.Module]:
        """Modules to be kept in evaluation mode (no dropout) in the present phase."""
        return []

    def metrics(self) -> dict[str, Metric]:
        """Metrics logged each epoch as ``mitigation/NAME``; the mitigation updates, the LightningModule logs them."""
        return {}


class NoMitigation(Mitigation):
    """Plain training: the head sees the learned attention and every example counts the same."""
