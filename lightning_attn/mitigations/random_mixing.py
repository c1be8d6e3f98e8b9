"""Random attention mixed in throughout training."""

from __future__ import annotations

from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import DrawingMitigation
from lightning_attn.mitigations.random_attention import RandomAttention
from lightning_attn.ops.losses import classification_loss
from lightning_attn.types import AttentionOutput, Batch, MitigatedNetwork


class RandomMixing(DrawingMitigation):
    """The head also has to be right under attention that was drawn at random: one more ``classify`` per step.

    The loss is ``CE(learned attention) + share / (1 - share) * CE(random attention)``; nothing is frozen. The head and
    the values learn to do with whatever weights come, so that there is less to gain from reading the label off them.
    With ``distribution: Uniform`` the second term always shows the mean of the values: the control that tells
    independence of the text from randomness. Our own, not published.

    Args:
        share: Share of the loss that is taken under random attention, in (0, 1).
        distribution: What is drawn; None means what is nearest to the weights that the attention layer gives:
            ``SoftmaxNormal()``, or random selections for a hard one.
        seed: See :class:`DrawingMitigation`.

    Raises:
        InputError: ``share`` is out of its range.
    """

    def __init__(self, share: float = 0.5, distribution: RandomAttention | None = None, seed: int = 0) -> None:
        if not 0 < share < 1:
            raise InputError(
                f"RandomMixing needs a share in (0, 1), got {share}; use NoMitigation for 0, RandomPretraining for 1."
            )
        super().__init__(seed)
        self.share = share
        self.distribution = distribution

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: MitigatedNetwork) -> Tensor:
        """Loss under random attention, with its weight beside the loss under the learned one; a scalar."""
        distribution = self.distribution or network.random_counterpart
        with self.drawing(output.learned.device):
            drawn = distribution.sample(output.learned.detach(), batch)
        loss = classification_loss(network.classify(output.values, drawn, batch), batch.target, network.schema)
        return self.share / (1 - self.share) * loss
