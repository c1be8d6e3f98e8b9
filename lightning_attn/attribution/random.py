"""Random scores: the floor that every other method has to beat."""

from __future__ import annotations

from torch import Tensor

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.randomness import uniform
from lightning_attn.types import Batch


@register("random")
class Random(Attribution):
    """Uniform numbers drawn by ``Batch.index``: an example has the same scores in any batch and process.

    Args:
        seed: Another seed gives other scores.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """See :meth:`Attribution.score`; in (0, 1)."""
        return uniform(batch.index, batch.valid.shape[1], self.seed)
