"""The loss of a classifier, wherever it is taken."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lightning_attn.types import DataSchema


def classification_loss(logits: Tensor, target: Tensor, schema: DataSchema, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in nats, a scalar; for several labels per example, the mean over examples and labels.

    Args:
        logits: Shape ``(B, C)``.
        target: Class index ``(B,)``, or probabilities of classes ``(B, C)``; 0/1 columns ``(B, C)`` for multi-label.
        schema: Says which of the two it is.
        weights: Weight of each example, shape ``(B,)``; or of each of its classes, shape ``(B, C)``, if they are
            probable to some degree or multi-label; None weighs all alike.
    """
    function: Callable[..., Tensor] = F.binary_cross_entropy_with_logits if schema.multi_label else F.cross_entropy
    if weights is None:
        return function(logits, target)
    if weights.dim() == 2 and not schema.multi_label:
        return -(weights * target * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
    return (weights * function(logits, target, reduction="none")).mean()
