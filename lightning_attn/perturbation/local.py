"""Variants under an encoder that reads every position by itself: nothing is computed anew."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_attn.perturbation.variants import KeyShortcut, Nodes, Variants
from lightning_attn.types import Batch


class LocalKeys(KeyShortcut):
    """Key i depends on embedding i alone, so a variant's keys are its text's.

    Args:
        contextualise: The encoder's, see :meth:`Encoder.contextualise`.
    """

    def __init__(self, contextualise: Callable[[Tensor, Batch], Tensor]) -> None:
        self.contextualise = contextualise

    def keys(self, embeddings: Tensor, variants: Variants) -> Nodes:
        """See :meth:`KeyShortcut.keys`."""
        return Nodes(self.contextualise(embeddings, variants.texts).flatten(0, 1), variants.places)
