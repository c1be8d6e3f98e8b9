"""How much of a text, best-ranked tokens first, must go before another class is predicted."""

from __future__ import annotations

import torch
from torch import Tensor


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
