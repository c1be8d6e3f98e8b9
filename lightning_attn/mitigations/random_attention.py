"""Attention drawn without looking at the text: the distributions of random-attention pretraining."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.ops.softmax import attendable, masked_softmax
from lightning_attn.types import Batch


class RandomAttention(ABC):
    """A distribution over attention weights that is independent of text and label, given the length."""

    @abstractmethod
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        """Draw one distribution over the attendable positions of each example.

        Args:
            attention: Learned weights, shape ``(B, L)``; only :class:`Shuffled` reads it, and only other rows of it.
            batch: Says which positions are valid and special.

        Returns:
            Weights that sum to 1 over valid and non-special positions, shape ``(B, L)``.
        """


class SoftmaxNormal(RandomAttention):
    """``softmax(t z)``, ``z ~ N(0, 1)``, ``t`` log-uniform in a range: the head meets flat and peaked weights alike.

    Args:
        low: Smallest ``t``, positive; 0.5 gives nearly uniform weights.
        high: Largest ``t``; 5 puts most of the mass on one or two positions.

    Raises:
        InputError: The range is empty or not positive.
    """

    def __init__(self, low: float = 0.5, high: float = 5.0) -> None:
        if not 0 < low <= high:
            raise InputError(f"SoftmaxNormal needs 0 < low <= high, got low={low}, high={high}.")
        self.low, self.high = low, high

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        exponent = torch.rand_like(attention[:, :1])
        sharpness = self.low * torch.exp(exponent * math.log(self.high / self.low))
        return masked_softmax(sharpness * torch.randn_like(attention), attendable(batch))


class Dirichlet(RandomAttention):
    """``Dirichlet(alpha, ..., alpha)`` over the attendable positions.

    Args:
        alpha: Concentration, positive; small values give peaked weights, 1 is uniform over the simplex.

    Raises:
        InputError: ``alpha`` is not positive.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        if alpha <= 0:
            raise InputError(f"Dirichlet needs a positive alpha, got {alpha}.")
        self.alpha = alpha

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        allowed = attendable(batch)
        # A Gamma(alpha) draw in logarithms, so that a tiny alpha cannot turn a whole row into zeros:
        # Gamma(alpha) = Gamma(alpha + 1) * U^(1/alpha).
        shape = torch.full_like(attention, self.alpha + 1.0, dtype=torch.float32)
        log_gamma = torch.distributions.Gamma(shape, torch.ones_like(shape)).sample().log()
        log_uniform = torch.rand_like(shape).clamp_min(torch.finfo(shape.dtype).tiny).log()
        return masked_softmax(log_gamma + log_uniform / self.alpha, allowed).to(attention.dtype)


class UniformSubset(RandomAttention):
    """Weight 1/k on ``k`` positions drawn without replacement; all positions if the text has fewer.

    Args:
        k: Number of positions, at least 1.

    Raises:
        InputError: ``k`` is below 1.
    """

    def __init__(self, k: int = 5) -> None:
        if k < 1:
            raise InputError(f"UniformSubset needs k >= 1, got {k}.")
        self.k = k

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        allowed = attendable(batch)
        order = torch.rand_like(attention).masked_fill(~allowed, -1.0)
        subset = torch.zeros_like(allowed).scatter(1, order.topk(min(self.k, order.shape[1])).indices, True) & allowed
        return subset / subset.sum(dim=-1, keepdim=True).clamp(min=1)


class UniformShare(RandomAttention):
    """Equal weight on a share of the positions, rounded up, drawn without replacement.

    Args:
        share: In (0, 1].

    Raises:
        InputError: ``share`` is out of its range.
    """

    def __init__(self, share: float = 0.2) -> None:
        if not 0 < share <= 1:
            raise InputError(f"UniformShare needs a share in (0, 1], got {share}.")
        self.share = share

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        allowed = attendable(batch)
        place = torch.rand_like(attention).masked_fill(~allowed, 2.0).argsort(dim=-1).argsort(dim=-1)
        count = share_of(allowed, self.share)
        return (allowed & (place < count)) / count.clamp(min=1)


class BernoulliSubset(RandomAttention):
    """Each position is drawn with probability ``p``, the drawn ones share the weight: subsets of every size.

    Where none is drawn, one position is.

    Source: Jethani et al., AISTATS 2021, https://arxiv.org/abs/2103.01890, where the predictor of REAL-X learns under
    such masks.

    Args:
        p: In (0, 1); 0.5 is published.

    Raises:
        InputError: ``p`` is out of its range.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 < p < 1:
            raise InputError(f"BernoulliSubset needs p in (0, 1), got {p}.")
        self.p = p

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        return bernoulli_subset(torch.full_like(attention[:, :1], self.p), attendable(batch))


class BernoulliShare(RandomAttention):
    """As :class:`BernoulliSubset`, with a probability that is drawn for each example: few positions, or many.

    A network that reads such selections meets every size that a selector may settle on, and learns to answer from
    little and from much alike. Ours.

    Args:
        low: Smallest probability, at least 0.
        high: Largest probability, at most 1.

    Raises:
        InputError: The range is empty or out of [0, 1].
    """

    def __init__(self, low: float = 0.05, high: float = 0.65) -> None:
        if not 0 <= low <= high <= 1 or high == 0:
            raise InputError(f"BernoulliShare needs 0 <= low <= high <= 1 and a high above 0, got {low} and {high}.")
        self.low, self.high = low, high

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        share = self.low + (self.high - self.low) * torch.rand_like(attention[:, :1])
        return bernoulli_subset(share, attendable(batch))


class Uniform(RandomAttention):
    """The same weight on every attendable position: a constant, for arms that are to differ by randomness alone."""

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        allowed = attendable(batch).to(attention.dtype)
        return allowed / allowed.sum(dim=-1, keepdim=True).clamp(min=1)


class Shuffled(RandomAttention):
    """The learned weights of another example of the batch, stretched to the length of this one.

    Never an example's own weights in another order: their sorted profile can carry the label. An example that
    is alone in its batch gets uniform weights.
    """

    @override
    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        allowed = attendable(batch)
        size = len(batch)
        if size == 1:
            return Uniform().sample(attention, batch)
        shift = int(torch.randint(1, size, ()))
        # Move each row's weights to the front, then read the neighbour's row at the same relative place.
        order = (~allowed).to(torch.int8).argsort(dim=-1, stable=True)
        profile = attention.detach().gather(1, order).roll(shift, dims=0)
        count = allowed.sum(dim=-1, keepdim=True)
        rank = allowed.cumsum(dim=-1) - 1
        place = (rank.clamp(min=0) * count.roll(shift, dims=0)).div(count.clamp(min=1), rounding_mode="floor")
        drawn = profile.gather(1, place).masked_fill(~allowed, 0.0)
        # Shrinking can skip every heavy place of the neighbour; a little of each keeps the row a distribution.
        drawn = drawn + torch.finfo(drawn.dtype).tiny * allowed
        return drawn / drawn.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(drawn.dtype).tiny)


def bernoulli_subset(share: Tensor, allowed: Tensor) -> Tensor:
    """Equal weights, shape ``(B, L)``, on positions that are drawn each with its row's probability; at least one is.

    Args:
        share: Probabilities, shape ``(B, 1)``.
        allowed: Positions that may be drawn, shape ``(B, L)``, bool.
    """
    number = torch.rand(allowed.shape, dtype=share.dtype, device=share.device).masked_fill(~allowed, 2.0)
    least = number.argmin(dim=-1, keepdim=True)
    drawn = (number < share).scatter(-1, least, True) & allowed
    return drawn / drawn.sum(dim=-1, keepdim=True).clamp(min=1)


def share_of(allowed: Tensor, share: float) -> Tensor:
    """``ceil(share * n)`` of the n allowed positions of each row, shape ``(B, 1)``, int64, from ``(B, L)``, bool."""
    # In double precision: 0.2 * 5 must not become 1.0000001.
    return (allowed.sum(dim=-1, keepdim=True).double() * share - 1e-9).ceil().long()
