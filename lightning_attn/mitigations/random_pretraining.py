"""Training that begins without the scorer: `RandomPretraining`, and its control `WarmStart`."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import DrawingMitigation, Phase
from lightning_attn.mitigations.random_attention import RandomAttention, SoftmaxNormal, Uniform
from lightning_attn.types import Batch, MitigatedNetwork, WeightDistribution


class RandomPretraining(DrawingMitigation):
    """First the value path and the head learn under random attention, then the scorer learns on top of them.

    While the phase is ``random``, the head sees weights drawn independently of the text, so it cannot learn to read
    the label off them; the scorer gets no gradient. In the phase ``learn`` the head sees the learned attention, and
    the value path and the head are frozen, or finetuned at a lower rate.

    Source: Bai et al., KDD 2021, https://arxiv.org/abs/2006.05656. Reconstructed: the distribution,
    what is frozen and the schedule are our choice.

    Args:
        epochs: Number of pretraining epochs, at least 1; the Trainer's ``max_epochs`` must be larger.
        distribution: What is drawn; None means what is nearest to the weights that the attention layer gives:
            ``SoftmaxNormal()``, or random selections for a hard one.
        then: ``freeze`` or ``finetune`` the value path and the head in the phase ``learn``.
        finetune_rate: Share of the learning rate that they get with ``then="finetune"``, in (0, 1].
        seed: See :class:`DrawingMitigation`.

    Raises:
        InputError: ``epochs`` or ``finetune_rate`` is out of its range.
    """

    freezes = True

    def __init__(
        self,
        epochs: int = 2,
        distribution: RandomAttention | None = None,
        then: Literal["freeze", "finetune"] = "freeze",
        finetune_rate: float = 0.1,
        seed: int = 0,
    ) -> None:
        if epochs < 1:
            raise InputError(f"RandomPretraining needs epochs >= 1, got {epochs}; use NoMitigation to switch it off.")
        if not 0 < finetune_rate <= 1:
            raise InputError(f"finetune_rate must be in (0, 1], got {finetune_rate}.")
        super().__init__(seed)
        self.epochs = self.random_epochs = epochs
        self._own_distribution = distribution is not None
        self.distribution: WeightDistribution = distribution or SoftmaxNormal()
        self.then = then
        self.finetune_rate = finetune_rate
        self.epoch = 0

    @property
    def phase(self) -> Phase:
        """``random`` in the first ``epochs`` epochs, then ``learn``."""
        return "random" if self.epoch < self.epochs else "learn"

    def lr_scales(self, network: MitigatedNetwork, epoch: int) -> dict[nn.Module, float]:
        """Everything in the phase ``random``; in the phase ``learn`` the value path is frozen or slowed.

        Raises:
            InputError: With the value path frozen there would be nothing left to learn.
        """
        self.epoch = epoch
        if not self._own_distribution:
            self.distribution = network.random_counterpart
        if self.then == "freeze":
            self._refuse_an_empty_scorer(network)
        if self.phase == "random":
            return {}
        rate = 0.0 if self.then == "freeze" else self.finetune_rate
        return dict.fromkeys(network.value_path(), rate)

    def _refuse_an_empty_scorer(self, network: MitigatedNetwork) -> None:
        if not network.scorer_parameters():
            raise InputError(
                f"RandomPretraining with then='freeze' leaves nothing to learn: the {type(network.attention).__name__} "
                "has no parameters, and the keys come from what is frozen; use values: local, then: finetune or "
                "another attention."
            )

    def observe(self, attention: Tensor, batch: Batch) -> Tensor:
        """Random weights in the phase ``random``, the learned ones afterwards; shape ``(B, L)``."""
        if self.phase == "learn":
            return attention
        with self.drawing(attention.device):
            return self.distribution.sample(attention.detach(), batch)

    def get_extra_state(self) -> dict[str, int]:
        """Epoch and number of draws, so that a resumed run goes on where the checkpoint was written."""
        return super().get_extra_state() | {"epoch": self.epoch}

    def set_extra_state(self, state: Any) -> None:
        """Restore :meth:`get_extra_state`."""
        super().set_extra_state(state)
        self.epoch = state["epoch"]


class WarmStart(RandomPretraining):
    """First the value path and the head learn on the whole input, evenly weighted, then the scorer learns.

    The cheapest control for whatever begins with random attention: does independence of the weights help, or only that
    the head was there first? In a :class:`SelectorNetwork` even weights are a mask of ones, so the reader learns on the
    unmasked input, as the anchor of DAR does (Liu et al., ICDE 2024, https://arxiv.org/abs/2312.04103).

    Args:
        epochs: Number of epochs on the whole input, at least 1; the Trainer's ``max_epochs`` must be larger.
        then: See :class:`RandomPretraining`.
        finetune_rate: See :class:`RandomPretraining`; 1 lets everything learn freely.

    Raises:
        InputError: ``epochs`` or ``finetune_rate`` is out of its range.
    """

    def __init__(
        self, epochs: int = 2, then: Literal["freeze", "finetune"] = "freeze", finetune_rate: float = 0.1
    ) -> None:
        super().__init__(epochs, Uniform(), then, finetune_rate)
