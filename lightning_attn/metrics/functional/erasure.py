"""What happens to the prediction when the top-ranked tokens are removed, or only they are kept."""

from __future__ import annotations

import torch
from torch import Tensor

#: Smallest probability that a logarithm is taken of.
FLOOR = 1e-12


def comprehensiveness(p_full: Tensor, p_without: Tensor) -> Tensor:
    """Mean drop of the explained class when its top-ranked tokens are removed.

    Args:
        p_full: Probability of that class on the whole text, shape ``(B,)``, in [0, 1].
        p_without: The same with each of K budgets removed, shape ``(B, K)``.

    Returns:
        One value per example, shape ``(B,)``, in [-1, 1]; higher is more faithful.

    Source: DeYoung et al., ERASER, ACL 2020, https://aclanthology.org/2020.acl-main.408
    """
    return (p_full[:, None] - p_without).mean(dim=-1)


def sufficiency(p_full: Tensor, p_only: Tensor) -> Tensor:
    """Mean drop of the explained class when only its top-ranked tokens are kept.

    Args:
        p_full: Probability of that class on the whole text, shape ``(B,)``, in [0, 1].
        p_only: The same with each of K budgets kept, shape ``(B, K)``.

    Returns:
        One value per example, shape ``(B,)``, in [-1, 1]; lower is more faithful, and it may be negative.

    Source: DeYoung et al., ERASER, ACL 2020, https://aclanthology.org/2020.acl-main.408
    """
    return (p_full[:, None] - p_only).mean(dim=-1)


def aopc(p_full: Tensor, p_without: Tensor) -> Tensor:
    """Mean drop over the perturbation curve, one ninth of the text after the other removed.

    Args:
        p_full: Probability of the explained class on the whole text, shape ``(B,)``, in [0, 1].
        p_without: The same with each of the K steps of the curve removed, shape ``(B, K)``.

    Returns:
        One value per example, shape ``(B,)``, in [-1, 1]; higher is more faithful.

    Source: Samek et al., TNNLS 2017, https://arxiv.org/abs/1509.06321, without the k = 0 term.
    """
    return (p_full[:, None] - p_without).mean(dim=-1)


def log_odds(p_full: Tensor, p_without: Tensor, true_odds: bool = False) -> Tensor:
    """Mean of ``ln(p(x without) / p(x))`` over the perturbation curve.

    Despite its established name it is a ratio of probabilities, not of odds.

    Args:
        p_full: Probability of the explained class on the whole text, shape ``(B,)``, in [0, 1].
        p_without: The same with each of the K steps removed, shape ``(B, K)``; floored at 1e-12.
        true_odds: Whether to take ``p / (1 - p)`` in place of p after all; both parts are floored.

    Returns:
        One value per example, shape ``(B,)``; lower is more faithful.

    Source: Qiang et al., AttCAT, NeurIPS 2022; there of the gold class, here of the class that is given.
    """
    return log_ratios(p_full, p_without, true_odds).mean(dim=-1)


def log_ratios(p_full: Tensor, p_without: Tensor, true_odds: bool = False) -> Tensor:
    """What :func:`log_odds` is the mean of, shape ``(B, K)``; arguments as there."""
    change = p_without.clamp(min=FLOOR).log() - p_full.clamp(min=FLOOR).log()[:, None]
    if true_odds:
        change = change - (1 - p_without).clamp(min=FLOOR).log() + (1 - p_full).clamp(min=FLOOR).log()[:, None]
    return change


def log_odds_floors(p_without: Tensor) -> Tensor:
    """How many of the K probabilities :func:`log_odds` floors, shape ``(B,)``, int64: where it is only a bound."""
    return (p_without < FLOOR).sum(dim=-1)


def explained(probabilities: Tensor, target: Tensor) -> Tensor:
    """Probability of one class an example, shape ``(B, V)``, from ``(B, V, C)`` and class indices ``(B,)``."""
    index = target[:, None, None].expand(-1, probabilities.shape[1], 1)
    return torch.gather(probabilities, -1, index).squeeze(-1)


def flip_fraction(probabilities: Tensor, target: Tensor, counts: Tensor, n: Tensor) -> Tensor:
    """Smallest share of the tokens whose removal changes the prediction.

    Args:
        probabilities: With the ``counts`` best-ranked tokens removed, shape ``(B, K, C)``.
        target: Class predicted of the whole text, shape ``(B,)``.
        counts: Tokens removed, shape ``(B, K)``, in any order.
        n: Tokens of each text that could be removed, shape ``(B,)``.

    Returns:
        One value an example, shape ``(B,)``, in (0, 1], 1 where the prediction never changes; lower is more faithful.

    Source: Chrysostomou and Aletras, ACL 2021, https://arxiv.org/abs/2105.02657, and their code; the exact smallest
    count among ``counts`` here, and tokens that cannot be removed are not counted in n.
    """
    flipped = (probabilities.argmax(dim=-1) != target[:, None]) & (counts > 0)
    share = counts / n[:, None].clamp(min=1)
    return share.masked_fill(~flipped, 1.0).amin(dim=-1)


def flip_first(probabilities: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """1 where removing the best-ranked token alone changes the prediction, else 0; shape ``(B,)``, higher is better.

    NaN where no column removes exactly one token; arguments as for :func:`flip_fraction`.
    """
    flipped = (probabilities.argmax(dim=-1) != target[:, None]) & (counts == 1)
    return torch.where((counts == 1).any(dim=-1), flipped.any(dim=-1).double(), torch.nan)
