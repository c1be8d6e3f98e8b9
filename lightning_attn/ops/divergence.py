"""How far apart two distributions are."""

from __future__ import annotations

from torch import Tensor


def total_variation(p: Tensor, q: Tensor, multi_label: bool = False) -> Tensor:
    """Total variation distance of class probabilities.

    Args:
        p: Shape ``(..., C)``.
        q: Shape ``(..., C)``.
        multi_label: Each probability is a distribution ``(p, 1 - p)`` of its own; their distances are averaged.

    Returns:
        Shape ``(...)``, in [0, 1].
    """
    distance = (p - q).abs()
    return distance.mean(dim=-1) if multi_label else distance.sum(dim=-1) / 2


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats of distributions ``(..., L)``, shape ``(...)``, at most ln 2."""
    middle = (p + q) / 2
    floor = 1e-30

    def divergence(r: Tensor) -> Tensor:
        return (r * (r.clamp(min=floor).log() - middle.clamp(min=floor).log())).sum(dim=-1)

    return (divergence(p) + divergence(q)) / 2
