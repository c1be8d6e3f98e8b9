"""Self-attention of Hugging Face models under control of a forward pass: `own_attention` and `Attend`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Under this name transformers knows our attention function and the mask function that goes with it.
NAME = "lightning_attn"


@dataclass(frozen=True)
class Projections:
    """Queries, keys and values of the self-attention of one layer.

    Attributes:
        module: The model's self-attention module.
        query: Shape ``(B, M, L, D)``.
        key: Same shape.
        value: Same shape.
        mask: True where a query may attend, shape ``(B, 1, L, L)``; None where it may everywhere.
        scaling: What scores are multiplied by.
        dropout: Share of weights that the model zeroes; 0 in evaluation.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    dropout: float

    def queries(self, part: slice) -> Projections:
        """The same for the queries of some positions alone."""
        return replace(self, query=self.query[:, :, part], mask=None if self.mask is None else self.mask[:, :, part])

    def masked(self, scores: Tensor) -> Tensor:
        """Scores ``(B, M, L, L)`` with the lowest float where a query may not attend."""
        return scores if self.mask is None else scores.masked_fill(~self.mask, torch.finfo(scores.dtype).min)

    def scores(self) -> Tensor:
        """Masked scores, shape ``(B, M, L, L)``."""
        return self.masked(self.query @ self.key.transpose(-2, -1) * self.scaling)

    def weights(self) -> Tensor:
        """Attention weights before dropout, shape ``(B, M, L, L)``."""
        return self.scores().softmax(dim=-1)

    def fused(self) -> Tensor:
        """Context, shape ``(B, M, L, D)``, by PyTorch's fused kernel, which keeps no weights."""
        return F.scaled_dot_product_attention(
            self.query, self.key, self.value, self.mask, self.dropout, scale=self.scaling
        )


class Attend(ABC):
    """What is to happen in the self-attention of one forward pass: ``model(..., attend=...)`` within `own_attention`.

    Layers are numbered in the order in which they run, because some models use one module for all layers.

    Args:
        first: Number of the first layer that runs.
    """

    def __init__(self, first: int = 0) -> None:
        self.next = first

    def __call__(self, projections: Projections) -> Tensor:
        """Attend in the next layer; see :meth:`attend`."""
        layer, self.next = self.next, self.next + 1
        return self.attend(layer, projections)

    @abstractmethod
    def attend(self, layer: int, projections: Projections) -> Tensor:
        """Context of every attention head, shape ``(B, M, L, D)``.

        Args:
            layer: Number of the layer, from 0.
            projections: Of that layer.
        """


def attention_function(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    attend: Attend | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What the models call, see ``transformers.AttentionInterface``: the fused kernel, without an ``attend``.

    With ``output_attentions=True`` the weights come back as the softmax made them, before dropout: rows sum to 1 in
    training too, unlike those of ``eager``.

    Returns:
        Context, shape ``(B, L, M, D)``, and weights, shape ``(B, M, L, L)``, if they were asked for.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    projections = Projections(module, query, key, value, attention_mask, scale, dropout)
    weights = None
    if attend is not None:
        context = attend(projections)
    elif kwargs.get("output_attentions"):
        weights = projections.weights()
        context = F.dropout(weights, dropout, module.training) @ value
    else:
        context = projections.fused()
    return context.transpose(1, 2).contiguous(), weights


def register() -> None:
    """Make attention and mask function known to transformers; a mask function is what keeps padding unread."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention_function)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within, this one model calls our attention function; afterwards, also after an error, its own one again."""
    register()
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


class Calls(Attend):
    """Leaves self-attention as it is.

    Attributes:
        modules: The self-attention module of every layer that ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modules: list[nn.Module] = []

    @override
    def attend(self, layer: int, projections: Projections) -> Tensor:
        self.modules.append(projections.module)
        return projections.fused()
