"""How different can attention be while the output stays the same?"""

from __future__ import annotations

from lightning_attn.experiments.forward import by_parts, computed
from lightning_attn.metrics.adversarial import Adversarial, AdversarialSolver, EdgeSolver, PublishedSolver
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import AttentionOutput, Batch

__all__ = ["Adversarial", "AdversarialSolver", "EdgeSolver", "PublishedSolver", "adversarial"]


def adversarial(
    network: AttentionNetwork, batch: Batch, *, solver: AdversarialSolver | None = None, max_tokens: int = 16384
) -> Adversarial:
    """Search the attention of each example that differs most from the learned one and gives the same output.

    Args:
        network: Built network.
        batch: B examples.
        solver: How to search; None means ``EdgeSolver()``. ``PublishedSolver()`` is the published search.
        max_tokens: Positions, padding included, of the texts read and of the candidates held at a time.

    Raises:
        InputError: ``max_tokens`` is below 1.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.2.
    """
    chosen = solver or EdgeSolver()

    def search(output: AttentionOutput, part: Batch) -> Adversarial:
        return chosen.solve(network, output, part, max_tokens)

    return by_parts(lambda part: search(*computed(network, part)), batch, max_tokens)
