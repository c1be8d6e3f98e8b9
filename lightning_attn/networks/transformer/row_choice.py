"""Which layers and attention heads of a model are looked at: `RowChoice`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_attn.errors import InputError

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
        selected = set(range(count) if heads is None else heads)
        if not numbers or not selected:
            raise InputError("TransformerNetwork needs at least one layer and one attention head to look at.")
        return cls(depth, count, int(config.hidden_size) // count, tuple(sorted(numbers)), tuple(sorted(selected)))

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
