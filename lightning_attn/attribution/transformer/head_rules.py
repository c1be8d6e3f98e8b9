"""What becomes of the relevance of each attention head: all of them count, or only some do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.networks.transformer.model import TransformerModel


class HeadRule:
    """Decides at the context ``A V`` of every layer. The base class lets everything pass."""

    def check(self, network: TransformerModel) -> None:
        """Nothing to check: fits every network."""

    def factor(self, relevance: Tensor, layer: int) -> Tensor:
        """What the relevance of each attention head is multiplied by, shape ``(B, M, 1, 1)``.

        Args:
            relevance: That arrives at the context, shape ``(B, M, L, D)``.
            layer: From 0.
        """
        return relevance.new_ones(relevance.shape[:2])[..., None, None]

    def kept(self, whole: Tensor, passed: Tensor) -> Tensor:
        """The map of relevance that is kept, shape ``(B, M, L, L)``.

        Args:
            whole: All relevance that arrived, put on the weights; not halved.
            passed: What goes on to the weights.
        """
        return passed


class EveryHead(HeadRule):
    """No selection."""


class ChosenHeads(HeadRule):
    """Relevance of attention heads that are not chosen is dropped; residual paths keep theirs.

    The layer's own map is without them too, and choosing all equals no selection: ``clean`` in ``docs/methods.md``.

    Args:
        heads: Of each layer, the lowest first, the numbers of its chosen attention heads, from 0.
        renormalise: Whether the chosen ones take over what is dropped, in proportion, so that none is lost; a layer
            without any loses it all the same.
    """

    def __init__(self, heads: Sequence[Sequence[int]], renormalise: bool = False) -> None:
        self.heads = [sorted(set(layer)) for layer in heads]
        self.renormalise = renormalise

    def check(self, network: TransformerModel) -> None:
        """See whether the selection fits.

        Raises:
            InputError: It is for another model.
        """
        if len(self.heads) != network.depth:
            raise InputError(
                f"The important attention heads are given for {len(self.heads)} layers, and the model has "
                f"{network.depth}: they belong to another model."
            )
        for number, layer in enumerate(self.heads):
            if layer and not 0 <= layer[0] <= layer[-1] < network.heads_per_layer:
                raise InputError(
                    f"Layer {number} has attention heads {layer} among the important ones, and the model has "
                    f"{network.heads_per_layer} a layer, from 0: they belong to another model."
                )

    def factor(self, relevance: Tensor, layer: int) -> Tensor:
        """See :meth:`HeadRule.factor`."""
        chosen = torch.zeros(relevance.shape[1], device=relevance.device, dtype=relevance.dtype)
        chosen[self.heads[layer]] = 1
        factor = chosen.expand(relevance.shape[:2])
        if self.renormalise:
            each = relevance.sum(dim=(2, 3))
            left = (each * chosen).sum(dim=1, keepdim=True)
            scale = torch.where(left == 0, 1.0, each.sum(dim=1, keepdim=True) / torch.where(left == 0, 1.0, left))
            factor = factor * scale
        return factor[..., None, None]


class ReleasedChosenHeads(ChosenHeads):
    """As the published code of Mask-LRP does it: ``released`` in ``docs/methods.md``.

    The map that is kept is the whole one, not halved: a selection acts on lower layers only, not at all in a model of
    one layer, and choosing all doubles every map.

    Args:
        heads: See :class:`ChosenHeads`.
    """

    def __init__(self, heads: Sequence[Sequence[int]]) -> None:
        super().__init__(heads)

    def kept(self, whole: Tensor, passed: Tensor) -> Tensor:
        """See :meth:`HeadRule.kept`."""
        return whole
