"""How concentrated attention is, and where."""

from __future__ import annotations

from torch import Tensor


def entropy(attention: Tensor) -> Tensor:
    """Entropy ``-sum a ln a`` in nats, shape ``(B,)``, from weights ``(B, L)`` that are 0 on padding."""
    return (attention * -attention.clamp(min=1e-38).log()).sum(dim=-1)


def effective_tokens(attention: Tensor) -> Tensor:
    """``exp(entropy)``: tokens that uniform attention of the same entropy would cover, shape ``(B,)``, at least 1."""
    return entropy(attention).exp()


def max_attention(attention: Tensor) -> Tensor:
    """The largest weight, shape ``(B,)``, in [0, 1]."""
    return attention.amax(dim=-1)


def special_mass(attention: Tensor, special: Tensor) -> Tensor:
    """Sum of the weights on special tokens, shape ``(B,)``, in [0, 1].

    Args:
        attention: Shape ``(B, L)``.
        special: ``Batch.special``, shape ``(B, L)``, bool.
    """
    return (attention * special).sum(dim=-1)
