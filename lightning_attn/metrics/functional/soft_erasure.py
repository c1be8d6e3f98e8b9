"""Soft erasure: every number of a token's embedding is kept with a probability that is the token's importance."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.ops.randomness import uniform
from lightning_attn.types import Batch

#: Least drop without any content; the code of the source adds as much, lest it divide by 0.
_LEAST = 1e-4


def soft_sufficiency(p_full: Tensor, p_kept: Tensor, p_empty: Tensor) -> Tensor:
    """How much of the explained class is left when embeddings are kept in proportion to importance: Soft-NS.

    ``(S - S_0) / (1 - S_0)`` with ``S = 1 - max(0, p_full - p_kept)``, and ``S_0`` the same of no content, cut to
    [0, 1]; the mean over the draws.

    Args:
        p_full: Probability of the explained class on the whole text, shape ``(B,)``, in [0, 1].
        p_kept: The same for D draws of what is kept, shape ``(B, D)``.
        p_empty: The same with every embedding 0, shape ``(B,)``.

    Returns:
        One value per example, shape ``(B,)``, in [0, 1]; **higher** is more faithful, unlike for ``sufficiency``. NaN
        where the class is as probable without any content.

    Source: Zhao and Aletras, ACL 2023, https://aclanthology.org/2023.acl-long.261
    """
    drop, most = _drops(p_full, p_kept, p_empty)
    return _defined(1 - drop / most, most)


def soft_comprehensiveness(p_full: Tensor, p_removed: Tensor, p_empty: Tensor) -> Tensor:
    """How much of the explained class goes when embeddings are removed in proportion to importance: Soft-NC.

    ``max(0, p_full - p_removed) / (1 - S_0)``, cut to [0, 1], the mean over the draws; arguments as for
    :func:`soft_sufficiency`, but ``p_removed`` is for draws of what is removed.

    Returns:
        One value per example, shape ``(B,)``, in [0, 1]; higher is more faithful. NaN as there.

    Source: Zhao and Aletras, ACL 2023, https://aclanthology.org/2023.acl-long.261
    """
    drop, most = _drops(p_full, p_removed, p_empty)
    return _defined(drop / most, most)


def _drops(p_full: Tensor, p: Tensor, p_empty: Tensor) -> tuple[Tensor, Tensor]:
    """Drops of the draws, ``(B, D)``, and without content, ``(B, 1)``, none below 0."""
    return (p_full[:, None] - p).clamp(min=0), (p_full - p_empty).clamp(min=0)[:, None]


def _defined(shares: Tensor, most: Tensor) -> Tensor:
    return shares.clamp(0, 1).mean(dim=-1).where(most.squeeze(1) >= _LEAST, torch.nan)


def unit_scores(scores: Tensor, inner: Tensor) -> Tensor:
    """Scores as probabilities: 0 for the lowest of a text, 1 for the highest; 0 outside ``inner``, shape ``(B, L)``.

    NaN where all are the same. As in the code of the source, but that its special tokens take part.
    """
    low = scores.masked_fill(~inner, torch.inf).amin(dim=-1, keepdim=True)
    high = scores.masked_fill(~inner, -torch.inf).amax(dim=-1, keepdim=True)
    spread = high - low
    return ((scores - low) / spread.where(spread > 0, torch.nan)).masked_fill(~inner, 0.0)


def softly_kept(shares: Tensor, batch: Batch, size: int, seed: int = 0) -> Tensor:
    """Draw which numbers of the embeddings are kept, each by itself.

    The numbers that are not kept for ``shares`` are those that are kept for ``1 - shares``. A position's draws depend
    on the seed, ``batch.index`` and the position, not on the batch that a text stands in.

    Args:
        shares: Probability of being kept, shape ``(B, L)``, in [0, 1].
        batch: B padded examples.
        size: E, numbers in an embedding.
        seed: Another one gives another draw.

    Returns:
        Shape ``(B, L, E)``, bool; nothing is said of positions that are not ``batch.inner``.
    """
    length = shares.shape[1]
    return uniform(batch.index, length * size, seed).view(-1, length, size) < shares[..., None]
