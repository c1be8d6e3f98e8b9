"""Masked fine-tuning: texts with replaced tokens in every training batch."""

from __future__ import annotations

import torch

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import DrawingMitigation
from lightning_attn.types import Batch, DataSchema


class MaskedFineTuning(DrawingMitigation):
    """Replaces random tokens in half of each batch, so that texts with replaced tokens are nothing new to the network.

    The first half is read as it is; in each text of the second half every non-special token is replaced with a
    probability of its own, drawn uniformly from [0, 1). Measures that replace tokens then stay within what the network
    was trained on. Instances of bags are replaced by zeros. Queries stay as they are.

    Source: Madsen, Reddy and Chandar, ICML 2024, https://arxiv.org/abs/2310.07819, and their code.

    Args:
        share: Share of a batch that is changed, in (0, 1]; 0.5 is published.
        seed: See :class:`DrawingMitigation`.

    Raises:
        InputError: ``share`` is out of its range.
    """

    def __init__(self, share: float = 0.5, seed: int = 0) -> None:
        if not 0 < share <= 1:
            raise InputError(f"MaskedFineTuning needs a share in (0, 1], got {share}.")
        super().__init__(seed)
        self.share = share

    def build(self, schema: DataSchema) -> None:
        """Learn the id that replaces a token."""
        self.replacement_id = schema.replacement_id

    def perturb(self, batch: Batch) -> Batch:
        """The batch with replaced tokens in its last texts."""
        with self.drawing(batch.device):
            rate = torch.rand(len(batch), 1, device=batch.device)
            drawn = torch.rand(batch.valid.shape, device=batch.device) < rate
        changed = torch.arange(len(batch), device=batch.device) >= round(len(batch) * (1 - self.share))
        replaced = drawn & changed[:, None] & batch.inner
        inputs = batch.inputs.clone()
        inputs[replaced[batch.valid] if batch.packed else replaced] = (
            0.0 if inputs.is_floating_point() else self.replacement_id
        )
        return batch.replace(inputs=inputs)
