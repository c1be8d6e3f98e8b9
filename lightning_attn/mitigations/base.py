"""What a mitigation may do to training: the hooks of `Mitigation`, and the base of those that draw at random."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_attn.errors import InputError, adopt_renamed
from lightning_attn.ops.randomness import seeded
from lightning_attn.types import AttentionOutput, Batch, DataSchema, MitigatedNetwork

Phase = Literal["random", "learn"]


class Mitigation(nn.Module):
    """A way to keep label information out of the attention weights while training. The base class changes nothing.

    The attention layer carries it, so its state is in the checkpoint; :meth:`MitigationCarrier.set_mitigation` puts it
    there. In evaluation a mitigation is the identity: nothing calls the hooks then.

    Attributes:
        freezes: Whether parameters go without gradient in some epoch; DDP must then look for unused parameters.
        random_epochs: Number of epochs in the phase ``random``; training must be longer, or the scorer never learns.
    """

    freezes: bool = False
    random_epochs: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_renamed(cls, trainable="lr_scales")

    @property
    def phase(self) -> Phase:
        """``random`` while the head sees attention that was drawn at random, else ``learn``."""
        return "learn"

    def build(self, schema: DataSchema) -> None:
        """Make layers whose size depends on the data; called once, before weights are loaded."""

    def perturb(self, batch: Batch) -> Batch:
        """What the network reads while training."""
        return batch

    def observe(self, attention: Tensor, batch: Batch) -> Tensor:
        """What the head sees while training in place of the scorer's weights, shape ``(B, L)``."""
        return attention

    def weigh(self, attention: Tensor, batch: Batch) -> Tensor | None:
        """Weight of each example in the loss, mean 1, no gradient; None weighs all alike.

        Args:
            attention: Weights that the scorer produced, shape ``(B, L)``.
            batch: The examples.

        Returns:
            Shape ``(B,)``; ``(B, C)`` for multi-label targets, and where ``batch.target`` holds probabilities: then an
            example counts as one of each class, to the degree that it is probable, and each has a weight.
        """
        return None

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: MitigatedNetwork) -> Tensor | None:
        """A scalar added to the loss, None for nothing."""
        return None

    def lr_scales(self, network: MitigatedNetwork, epoch: int) -> dict[nn.Module, float]:
        """Which parts have a rate of their own in this epoch; called at the start of every training epoch.

        Args:
            network: The network whose attention layer carries this mitigation.
            epoch: Number of the epoch, from 0.

        Returns:
            Modules and how many times the learning rate they get: 0 freezes a module (no gradient, no optimiser step,
            no weight decay, evaluation mode). Modules that are not named learn at the learning rate.
        """
        return {}

    def metrics(self) -> dict[str, Metric]:
        """Metrics logged each epoch as ``mitigation/NAME``; the mitigation updates, the LightningModule logs them."""
        return {}


class NoMitigation(Mitigation):
    """Plain training: the head sees the learned attention and every example counts the same."""


class MitigationCarrier(nn.Module, ABC):
    """What has a mitigation: an attention layer, and the network and the LightningModule around it.

    One method puts a mitigation in place, and nothing else does: an assignment is refused.
    """

    @abstractmethod
    def set_mitigation(self, mitigation: Mitigation) -> None:
        """Put a mitigation in the place of the one that is there, built for the data if these are known.

        Raises:
            InputError: Nothing is trained here that a mitigation could act on.
            InputError: It holds what it learned with another network.
        """

    @abstractmethod
    def _carried_mitigation(self) -> Mitigation:
        """The mitigation in place."""

    @property
    def mitigation(self) -> Mitigation:
        """The mitigation in place, ``NoMitigation()`` by default; :meth:`set_mitigation` exchanges it."""
        return self._carried_mitigation()

    @mitigation.setter
    def mitigation(self, value: Mitigation) -> None:
        raise InputError(
            f"A mitigation is not assigned to a {type(self).__name__}: call set_mitigation(...), which builds it too."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # Torch registers a module under any name before it looks at properties: the setter would never be asked, and
        # what is read afterwards would still be the property.
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


class DrawingMitigation(Mitigation):
    """A mitigation that draws at random while training: each draw has a number, and its own seed.

    One seed a draw instead of a running generator: a resumed run then draws what an unbroken one would have.

    Args:
        seed: Seed of the draws; processes draw differently.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.draws = 0

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        """What is drawn inside is the next draw; the global random state stays as it was."""
        self.draws += 1
        # The hash of a tuple of integers is the same in every process and run. SplitMix64 (ops/randomness.py) would
        # be as good a seed, but another one: trainings under the same seed would no longer end with the same weights.
        with seeded(hash((self.seed, process_rank(), self.draws)) % 2**63, device):
            yield

    def get_extra_state(self) -> dict[str, int]:
        """Number of draws, so that a resumed run goes on where the checkpoint was written."""
        return {"draws": self.draws}

    def set_extra_state(self, state: Any) -> None:
        """Restore :meth:`get_extra_state`."""
        self.draws = state["draws"]


def process_rank() -> int:
    """Number of this process among those that train together, 0 for a single one."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
