"""Hard selection: the head sees k positions with equal weight and nothing of the others."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_attn.attention.base import Attention
from lightning_attn.attention.scorers import AdditiveAttention
from lightning_attn.errors import InputError
from lightning_attn.mitigations.random_attention import RandomAttention, UniformShare, UniformSubset, share_of
from lightning_attn.ops.softmax import attendable, masked_softmax
from lightning_attn.types import Batch


class Sampler(ABC):
    """How a selection is drawn while training, so that scores get a gradient.

    Args:
        temperature: Of the relaxation, positive; towards 0 it becomes a hard selection without a useful gradient.

    Raises:
        InputError: ``temperature`` is not positive.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        if temperature <= 0:
            raise InputError(f"{type(self).__name__} needs a positive temperature, got {temperature}.")
        self.temperature = temperature

    @abstractmethod
    def draw(self, scores: Tensor, allowed: Tensor, counts: Tensor) -> Tensor:
        """A draw of k positions, 1 where selected or between 0 and 1 where relaxed, exactly 0 where not allowed.

        Args:
            scores: Shape ``(B, L)``, finite where allowed.
            allowed: Positions that may be selected, shape ``(B, L)``, bool.
            counts: k of each example, at most the number of its allowed positions, shape ``(B, 1)``, int64.
        """


class GumbelTopK(Sampler):
    """The top k of scores plus Gumbel noise, without replacement; the gradient is that of a relaxed top k.

    Forward, the draw is hard: what the head sees while training is what it sees in evaluation. Backward, it is the sum
    of k softmaxes, each over what the ones before have left.

    Source: Kool et al., ICML 2019, https://arxiv.org/abs/1903.06059 (the draw); Xie and Ermon, IJCAI 2019,
    https://arxiv.org/abs/1901.10517, equations 6 to 8 (the relaxation).

    Args:
        temperature: See :class:`Sampler`.
    """

    def draw(self, scores: Tensor, allowed: Tensor, counts: Tensor) -> Tensor:
        """A hard draw, shape ``(B, L)``."""
        noisy = scores + _gumbel(scores)
        hard = top_k(noisy, allowed, counts)
        left, relaxed = noisy, torch.zeros_like(noisy)
        for step in range(int(counts.max()) if len(counts) else 0):
            part = masked_softmax(left / self.temperature, allowed)
            relaxed = relaxed + part * (step < counts)
            left = left + (1 - part).clamp_min(torch.finfo(part.dtype).tiny).log()
        return hard + (relaxed - relaxed.detach())


class L2XSampler(Sampler):
    """``max_j softmax((s + g_j) / temperature)`` over k draws of Gumbel noise: with replacement, relaxed forward too.

    Source: Chen et al., ICML 2018, https://arxiv.org/abs/1802.07814, and their code. There the noise is drawn once and
    padding takes part; here it is drawn anew each time, over real positions.

    Args:
        temperature: See :class:`Sampler`; 0.5 is published.
    """

    def draw(self, scores: Tensor, allowed: Tensor, counts: Tensor) -> Tensor:
        """A relaxed draw, shape ``(B, L)``."""
        most = int(counts.max()) if len(counts) else 1
        repeated = scores[:, None].expand(-1, most, -1)
        parts = masked_softmax((repeated + _gumbel(repeated)) / self.temperature, allowed[:, None])
        used = torch.arange(most, device=scores.device) < counts
        return (parts * used[..., None]).amax(dim=1)


class Selection(Attention):
    """Selects k positions: weight 1/k on each, 0 elsewhere. Drawn while training, the k best scores in evaluation.

    In training ``learned`` is the draw, so that mitigations see the masks that the head sees.

    Args:
        scorer: Scores positions; None means ``AdditiveAttention()``. Its temperature and special tokens count; its
            mitigation does not.
        sampler: How to draw while training; None means ``GumbelTopK()``.
    """

    hard = True

    def __init__(self, scorer: Attention | None = None, sampler: Sampler | None = None) -> None:
        scorer = scorer or AdditiveAttention()
        super().__init__(scorer.temperature, scorer.attend_special)
        self.scorer = scorer
        self.sampler = sampler or GumbelTopK()

    @abstractmethod
    def counts(self, allowed: Tensor) -> Tensor:
        """How many to select of each example, at most its number of allowed positions; shape ``(B, 1)``, int64."""

    def make_layers(self, key_size: int) -> None:
        """Create the scorer's layers."""
        self.scorer.make_layers(key_size)

    def score(self, keys: Tensor) -> Tensor:
        """The scorer's scores, shape ``(B, L)``, from keys ``(B, L, K)``."""
        return self.scorer.score(keys)

    def normalise(self, raw: Tensor, scores: Tensor, batch: Batch) -> Tensor:
        """Weights of the selection, shape ``(B, L)``: they sum to 1."""
        allowed = batch.valid if batch.packed else attendable(batch, self.attend_special)
        counts = self.counts(allowed)
        if self.training:
            drawn = self.sampler.draw(scores, allowed, counts)
            return drawn / drawn.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(drawn.dtype).tiny)
        return top_k(scores, allowed, counts) / counts.clamp(min=1)


class TopKSelection(Selection):
    """Selects ``k`` positions of every text, all of them where it has no more. See :class:`Selection`.

    Args:
        k: Number of positions, at least 1; 10 is what L2X selects of a film review.
        scorer: See :class:`Selection`.
        sampler: See :class:`Selection`.

    Raises:
        InputError: ``k`` is below 1.
    """

    def __init__(self, k: int = 10, scorer: Attention | None = None, sampler: Sampler | None = None) -> None:
        if k < 1:
            raise InputError(f"TopKSelection needs a k of at least 1, got {k}.")
        super().__init__(scorer, sampler)
        self.k = k
        self._warned = False

    @property
    def random_counterpart(self) -> RandomAttention:
        """Random selections of ``k``."""
        return UniformSubset(self.k)

    def counts(self, allowed: Tensor) -> Tensor:
        """``k``, or the number of positions where that is less; warns once if no text of a batch is longer."""
        lengths = allowed.sum(dim=-1, keepdim=True)
        if self.training and not self._warned and len(lengths) and int(lengths.max()) <= self.k:
            self._warned = True
            warnings.warn(
                f"TopKSelection selects {self.k} positions, but the longest text of a training batch has "
                f"{int(lengths.max())}, so that nothing is left out of it; choose a smaller k, or TopShareSelection.",
                stacklevel=2,
            )
        return lengths.clamp(max=self.k)


class TopShareSelection(Selection):
    """Selects a share of the positions of each text, rounded up. See :class:`Selection`.

    Args:
        share: In (0, 1].
        scorer: See :class:`Selection`.
        sampler: See :class:`Selection`.

    Raises:
        InputError: ``share`` is out of its range.
    """

    def __init__(self, share: float = 0.2, scorer: Attention | None = None, sampler: Sampler | None = None) -> None:
        if not 0 < share <= 1:
            raise InputError(f"TopShareSelection needs a share in (0, 1], got {share}.")
        super().__init__(scorer, sampler)
        self.share = share

    @property
    def random_counterpart(self) -> RandomAttention:
        """Random selections of the same share."""
        return UniformShare(self.share)

    def counts(self, allowed: Tensor) -> Tensor:
        """``ceil(share * n)``."""
        return share_of(allowed, self.share)


def top_k(scores: Tensor, allowed: Tensor, counts: Tensor) -> Tensor:
    """1 on the k best allowed positions of each row, the earlier of equals, else 0; see :meth:`Sampler.draw`."""
    order = scores.detach().masked_fill(~allowed, -math.inf).argsort(dim=-1, descending=True, stable=True)
    best = torch.arange(scores.shape[-1], device=scores.device) < counts
    return torch.zeros_like(scores).scatter(-1, order, best.to(scores.dtype)) * allowed


def _gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise of a tensor's shape."""
    exponential = torch.empty_like(like).exponential_()
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log()
