"""When callbacks measure, and on what."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork


def measures_now(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether this evaluation is one to measure: each n-th epoch of fit, and always in validate and test.

    Never during the sanity check: media logged there would look like those of epoch 0.
    """
    if trainer.sanity_checking:
        return False
    return trainer.state.fn != TrainerFn.FITTING or (trainer.current_epoch + 1) % every_n_epochs == 0


def moment_of(trainer: Trainer) -> str:
    """``epoch 3``, or ``validate`` or ``test`` of a network that is not being trained."""
    state = trainer.state.fn
    return f"epoch {trainer.current_epoch}" if state in (None, TrainerFn.FITTING) else state.value


def network_of(pl_module: LightningModule) -> AttentionNetwork:
    """The network that ``pl_module`` trains.

    Raises:
        InputError: It has none.
    """
    network = getattr(pl_module, "network", None)
    if not isinstance(network, AttentionNetwork):
        raise InputError(
            f"{type(pl_module).__name__} has no attribute `network` of type AttentionNetwork, which the attention "
            "callbacks measure; use AttentionClassifier, or set self.network."
        )
    return network
