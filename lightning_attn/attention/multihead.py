"""Several attention distributions over the same positions: `MultiHeadAttention`."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.attention.base import AttentionLayer
from lightning_attn.ops.bag_reduce import packed_softmax
from lightning_attn.ops.softmax import attendable, masked_softmax
from lightning_attn.types import Batch


@dataclass
class HeadWeights:
    """What the M attention heads of a layer made of a batch.

    Attributes:
        scores: Before softmax; the lowest float of the dtype where nothing may be attended, shape ``(B, M, L)``.
        learned: Their softmax over the positions that may be attended, shape ``(B, M, L)``.
        observed: What the head of the network is to use, after the mitigation, shape ``(B, M, L)``.
    """

    scores: Tensor
    learned: Tensor
    observed: Tensor

    def mean_scores(self) -> Tensor:
        """Scores whose softmax is the mean of the learned weights, shape ``(B, L)``; a saturated one makes no ties."""
        lowest = torch.finfo(self.scores.dtype).min
        means = self.scores.log_softmax(dim=-1).logsumexp(dim=1) - math.log(self.scores.shape[1])
        return means.masked_fill((self.scores <= lowest).all(dim=1), lowest)

    def shares(self, batch: Batch) -> Tensor:
        """``a_mi / a_i`` of each attention head, shape ``(B, L, M)``, or ``(N, M)`` if the batch is packed; mean 1.

        In logarithms, because a quotient of weights that have become 0 is none. Where all are 0, the shares are 1:
        weight that is put there from outside reaches all attention heads alike.
        """
        weights = batch.at_instances(self.observed.transpose(1, 2))
        return weights.shape[-1] * weights.clamp_min(torch.finfo(weights.dtype).tiny).log().softmax(dim=-1)


class MultiHeadAttention(AttentionLayer):
    """M scorers, each with a softmax of its own. How many there are, the network decides.

    The scorers share their hidden layer and differ in the last one. A mitigation acts on each attention head by itself,
    as if it were the only one: weights drawn at random are then independent of what the layer has learned, and of each
    other. As a layer like any other it gives the mean of its attention heads.

    Source: the attention branches of the code of Ilse, Tomczak and Welling, ICML 2018,
    https://arxiv.org/abs/1802.04712; Lin et al., ICLR 2017, https://arxiv.org/abs/1703.03130, equation 6.

    Args:
        temperature: See :class:`AttentionLayer`.
        attend_special: See :class:`AttentionLayer`.
    """

    @abstractmethod
    def make_layers(self, key_size: int, heads: int) -> None:
        """Create the scorers of M attention heads for keys of ``key_size`` numbers; the network calls it."""

    @abstractmethod
    def score(self, keys: Tensor) -> Tensor:
        """Unnormalised scores, shape ``(B, L, M)`` or ``(N, M)``, from keys ``(B, L, K)`` or ``(N, K)``."""

    def heads(self, keys: Tensor, batch: Batch) -> HeadWeights:
        """Scores and weights of every attention head.

        Args:
            keys: Shape ``(B, L, K)``, or ``(N, K)`` if the batch is packed.
            batch: Says which positions are valid and special.
        """
        raw = self.score(keys) / self.temperature
        lowest = torch.finfo(raw.dtype).min
        if batch.packed:
            scores = batch.unpack(raw, fill=lowest).transpose(1, 2)
            learned = batch.unpack(packed_softmax(raw, batch)).transpose(1, 2)
        else:
            allowed = attendable(batch, self.attend_special)[:, None]
            scores = raw.transpose(1, 2).masked_fill(~allowed, lowest)
            learned = masked_softmax(scores, allowed)
        observed = learned
        if self.training:
            seen = self.attendable(batch)
            observed = torch.stack([self.mitigation.observe(one, seen) for one in learned.unbind(dim=1)], dim=1)
        return HeadWeights(scores, learned, observed)

    def raw_scores(self, keys: Tensor, batch: Batch) -> Tensor:
        """Logarithm of the mean of the learned weights, shape ``(B, L)``."""
        return self.heads(keys, batch).mean_scores()

    def forward(self, keys: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and mean weights, see :class:`AttentionLayer`; each of shape ``(B, L)``."""
        weights = self.heads(keys, batch)
        return weights.mean_scores(), weights.learned.mean(dim=1), weights.observed.mean(dim=1)


class MultiHeadAdditiveAttention(MultiHeadAttention):
    """``s_mi = u_m . tanh(W k_i + b)``; see :class:`AdditiveAttention`.

    Args:
        size: Rows of ``W``; None means half the key size.
        temperature: See :class:`AttentionLayer`.
        attend_special: See :class:`AttentionLayer`.
    """

    def __init__(self, size: int | None = None, temperature: float = 1.0, attend_special: bool = False) -> None:
        super().__init__(temperature, attend_special)
        self.size = size

    def make_layers(self, key_size: int, heads: int) -> None:
        """Create ``W, b`` and the ``u_m``."""
        size = self.size or max(1, key_size // 2)
        self.project = nn.Linear(key_size, size)
        self.directions = nn.Linear(size, heads, bias=False)

    @override
    def score(self, keys: Tensor) -> Tensor:
        return self.directions(torch.tanh(self.project(keys)))  # type: ignore[no-any-return]


class MultiHeadGatedAttention(MultiHeadAttention):
    """``s_mi = w_m . ( tanh(V k_i) * sigmoid(U k_i) )``; see :class:`GatedAttention`.

    Args:
        size: Rows of ``V`` and ``U``.
        temperature: See :class:`AttentionLayer`.
        attend_special: See :class:`AttentionLayer`.
    """

    def __init__(self, size: int = 128, temperature: float = 1.0, attend_special: bool = False) -> None:
        super().__init__(temperature, attend_special)
        self.size = size

    def make_layers(self, key_size: int, heads: int) -> None:
        """Create ``V``, ``U`` and the ``w_m``."""
        self.project = nn.Linear(key_size, self.size)
        self.gate = nn.Linear(key_size, self.size)
        self.directions = nn.Linear(self.size, heads)

    @override
    def score(self, keys: Tensor) -> Tensor:
        return self.directions(torch.tanh(self.project(keys)) * torch.sigmoid(self.gate(keys)))  # type: ignore[no-any-return]
