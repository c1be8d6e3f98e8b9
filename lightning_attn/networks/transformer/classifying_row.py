"""The row of the classifying position, in chosen layers and attention heads: `RowChoice`, `RowAttend` and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lightning_attn.attention.multihead import HeadWeights, MultiHeadAttention
from lightning_attn.errors import InputError
from lightning_attn.networks.transformer.self_attention import Attend, Projections
from lightning_attn.types import Batch

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from typing_extensions import Self


@dataclass(frozen=True)
class RowChoice:
    """Layers and attention heads of a certain model.

    Attributes:
        depth: Number of layers of the model.
        heads_per_layer: Number of its attention heads in each layer.
        head_size: Numbers of each of them.
        layers: The chosen layers, ascending, from 0.
        heads: The chosen attention heads of each of these, ascending, from 0.
    """

    depth: int
    heads_per_layer: int
    head_size: int
    layers: tuple[int, ...]
    heads: tuple[int, ...]

    @classmethod
    def from_config(
        cls, name: str, config: PretrainedConfig, layers: Sequence[int], heads: Sequence[int] | None
    ) -> Self:
        """The choice for a model.

        Args:
            name: Of the model, for messages.
            config: Its configuration.
            layers: 1 is the lowest, -1 the highest.
            heads: From 0; None means all.

        Raises:
            InputError: The model has no such layer or attention head, or nothing is chosen.
        """
        depth, count = int(config.num_hidden_layers), int(config.num_attention_heads)
        for layer in layers:
            if layer == 0 or not -depth <= layer <= depth:
                raise InputError(
                    f"{name!r} has {depth} layers: layers must be of 1 to {depth}, or -{depth} to -1, not {layer}."
                )
        for head in heads or ():
            if not 0 <= head < count:
                raise InputError(
                    f"{name!r} has {count} attention heads per layer: heads must be of 0 to {count - 1}, not {head}."
                )
        numbers = {layer - 1 if layer > 0 else depth + layer for layer in layers}
        heads_of_layer = set(range(count) if heads is None else heads)
        if not numbers or not heads_of_layer:
            raise InputError("TransformerNetwork needs at least one layer and one attention head to look at.")
        return cls(
            depth, count, int(config.hidden_size) // count, tuple(sorted(numbers)), tuple(sorted(heads_of_layer))
        )

    @property
    def only_last(self) -> bool:
        """Whether the last layer is the only one."""
        return self.layers == (self.depth - 1,)

    @property
    def last(self) -> int:
        """Number of the model's last layer, from 0."""
        return self.depth - 1

    @property
    def others(self) -> list[int]:
        """Attention heads of a layer that are not chosen."""
        return [head for head in range(self.heads_per_layer) if head not in self.heads]


class ClassifyingRow(MultiHeadAttention):
    """Weights that the classifying position gives to every position, in chosen layers and attention heads of a model.

    The model has the scorers, so this layer has none: its keys are the model's scores. It exists for the mitigation,
    which acts on every attention head by itself, see :class:`MultiHeadAttention`. Special tokens are attended.
    """

    def __init__(self) -> None:
        super().__init__(attend_special=True)

    @override
    def make_layers(self, key_size: int, heads: int) -> None:
        """Nothing to make."""

    @override
    def score(self, keys: Tensor) -> Tensor:
        return keys


class RowAttend(Attend):
    """Takes the classifying row of chosen layers through a :class:`ClassifyingRow`; all else is the model's own.

    Only the first position of the last layer is computed: no other is read afterwards.

    Args:
        row: What makes weights of scores.
        batch: B texts.
        choice: Which layers and attention heads; the lowest of these layers is the first that runs.

    Attributes:
        layer_weights: The weights of each chosen layer, of the chosen attention heads.
        values: Values of the last layer, shape ``(B, M, L, D)``.
        context: Context of the first position in the last layer, shape ``(B, M, D)``.
    """

    values: Tensor
    context: Tensor

    def __init__(self, row: ClassifyingRow, batch: Batch, choice: RowChoice) -> None:
        super().__init__(choice.layers[0])
        self.row = row
        self.batch = batch
        self.choice = choice
        self.heads = list(choice.heads)
        self.layer_weights: list[HeadWeights] = []

    @override
    def attend(self, layer: int, projections: Projections) -> Tensor:
        if layer not in self.choice.layers:
            return self._rest(layer, projections)
        scores = projections.queries(slice(1)).scores()
        weights = scores.squeeze(2).softmax(dim=-1)
        own = self.row.heads(scores[:, self.heads, 0].transpose(1, 2), self.batch)
        self.layer_weights.append(own)
        index = torch.tensor(self.heads, device=weights.device)
        weights = weights.index_copy(1, index, own.observed.to(weights.dtype))
        weights = self.replaced(len(self.layer_weights) - 1, weights)
        dropped = F.dropout(weights, projections.dropout, projections.module.training)
        context = (dropped[:, :, None] @ projections.value).squeeze(2)
        if layer == self.choice.last:
            self.values, self.context = projections.value, context
            return F.pad(context[:, :, None], (0, 0, 0, projections.query.shape[2] - 1))
        others = projections.queries(slice(1, None)).fused()
        return torch.cat([context[:, :, None].to(others.dtype), others], dim=2)

    def replaced(self, number: int, weights: Tensor) -> Tensor:
        """The weights that are used, shape ``(B, M, L)``, in the chosen layer of that number."""
        return weights

    def _rest(self, layer: int, projections: Projections) -> Tensor:
        """A layer that nobody looks at."""
        if layer != self.choice.last:
            return projections.fused()
        return F.pad(projections.queries(slice(1)).fused(), (0, 0, 0, projections.query.shape[2] - 1))

    def weights(self) -> HeadWeights:
        """Those of all chosen layers side by side, the layers in ascending order."""
        return HeadWeights(
            *(
                torch.cat([getattr(one, name) for one in self.layer_weights], dim=1)
                for name in ("scores", "learned", "observed")
            )
        )


class ReplacedRows(RowAttend):
    """The classifying row of chosen layers gets weights from outside.

    Args:
        outside: Weights of the chosen attention heads of all chosen layers, shape ``(B, K, L)``.
        batch: See :class:`RowAttend`.
        choice: See :class:`RowAttend`.
    """

    def __init__(self, outside: Tensor, batch: Batch, choice: RowChoice) -> None:
        super().__init__(ClassifyingRow().eval(), batch, choice)
        self.outside = outside

    @override
    def replaced(self, number: int, weights: Tensor) -> Tensor:
        count = len(self.heads)
        index = torch.tensor(self.heads, device=weights.device)
        part = self.outside[:, number * count : (number + 1) * count]
        return weights.index_copy(1, index, part.to(weights.dtype))


class ReplacedContext(Attend):
    """A layer whose context comes from outside.

    Args:
        context: Shape ``(B, M, D)``, of the one position there is.
    """

    def __init__(self, context: Tensor) -> None:
        super().__init__()
        self.context = context

    @override
    def attend(self, layer: int, projections: Projections) -> Tensor:
        return self.context[:, :, None]
