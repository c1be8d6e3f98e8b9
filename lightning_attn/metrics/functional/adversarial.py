"""How different can attention be while the output stays the same?"""

from __future__ import annotations

from torch import Tensor

from lightning_attn.metrics.adversarial import AdversarialSolver, EdgeSolver
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import AttentionOutput, Batch


def adversarial_jsd(
    network: AttentionNetwork,
    output: AttentionOutput,
    batch: Batch,
    solver: AdversarialSolver | None = None,
    max_tokens: int = 16384,
) -> Tensor:
    """Largest divergence from the attention that is found among weights that keep the output.

    Args:
        network: Only its ``classify`` and ``classify_many`` run, with the parameters as they are.
        output: What the network computed for ``batch``.
        batch: B examples.
        solver: How to search; None means ``EdgeSolver()``, which finds more than the published search, in less time.
            ``PublishedSolver()`` is that search.
        max_tokens: See :meth:`AdversarialSolver.solve`.

    Returns:
        Shape ``(B,)``, in [0, ln 2]: Jensen-Shannon divergence in nats, 0 if no other weights move the output by at
        most 0.05; NaN where fewer than two positions can be attended. High: other attention gives the same output.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.2; the search is ours.
    """
    return (solver or EdgeSolver()).solve(network, output, batch, max_tokens).jsd
