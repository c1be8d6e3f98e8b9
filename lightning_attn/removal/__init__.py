"""Exact shortcuts for the perturbation sweep: what a removal leaves as it was is not computed again."""

from lightning_attn.removal.base import Removal, Reread
from lightning_attn.removal.variants import KeyShortcut, Nodes, Variants

__all__ = ["KeyShortcut", "Nodes", "Removal", "Reread", "Variants"]
