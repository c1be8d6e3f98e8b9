"""The row of the classifying position, in chosen layers and attention heads of a model: `ClassifyingRow`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_attn.attention.multihead import HeadWeights, MultiHeadAttention
from lightning_attn.networks.transformer.row_choice import RowChoice
from lightning_attn.networks.transformer.self_attention import Attend, Projections
from lightning_attn.types import Batch


class ClassifyingRow(MultiHeadAttention):
    """Weights that the classifying position gives to every position, in chosen layers and attention heads of a model.

    The model has the scorers, so this layer has none: its keys are the model's scores. It exists for the mitigation,
    which acts on every attention head by itself, see :class:`MultiHeadAttention`. Special tokens are attended.
    """

    def __init__(self) -> None:
        super().__init__(attend_special=True)

    def make_layers(self, key_size: int, heads: int) -> None:
        """Nothing to make."""

    def score(self, keys: Tensor) -> Tensor:
        """The keys, which are scores of M attention heads, shape ``(B, L, M)``."""
        return keys


class RowAttend(Attend):
    """Takes the classifying row of chosen layers through a :class:`ClassifyingRow`; all else is the model's own.

    Only the first position of the last layer is computed: no other is read afterwards.

    Args:
        row: What makes weights of scores.
        batch: B texts.
        choice: Which layers and attention heads; the lowest of these layers is the first that runs.

    Attributes:
        found: The weights of each chosen layer, of the chosen attention heads.
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
        self.found: list[HeadWeights] = []

    def attend(self, layer: int, given: Projections) -> Tensor:
        """See :meth:`Attend.attend`."""
        if layer not in self.choice.layers:
            return self._rest(layer, given)
        scores = given.queries(slice(1)).scores()
        weights = scores.squeeze(2).softmax(dim=-1)
        found = self.row.heads(scores[:, self.heads, 0].transpose(1, 2), self.batch)
        self.found.append(found)
        index = torch.tensor(self.heads, device=weights.device)
        weights = self.replaced(len(self.found) - 1, weights.index_copy(1, index, found.observed.to(weights.dtype)))
        dropped = F.dropout(weights, given.dropout, given.module.training)
        context = (dropped[:, :, None] @ given.value).squeeze(2)
        if layer == self.choice.last:
            self.values, self.context = given.value, context
            return F.pad(context[:, :, None], (0, 0, 0, given.query.shape[2] - 1))
        others = given.queries(slice(1, None)).fused()
        return torch.cat([context[:, :, None].to(others.dtype), others], dim=2)

    def replaced(self, number: int, weights: Tensor) -> Tensor:
        """The weights that are used, shape ``(B, M, L)``, in the chosen layer of that number."""
        return weights

    def _rest(self, layer: int, given: Projections) -> Tensor:
        """A layer that nobody looks at."""
        if layer != self.choice.last:
            return given.fused()
        return F.pad(given.queries(slice(1)).fused(), (0, 0, 0, given.query.shape[2] - 1))

    def weights(self) -> HeadWeights:
        """Those of all chosen layers side by side, the layers in ascending order."""
        return HeadWeights(
            *(
                torch.cat([getattr(one, name) for one in self.found], dim=1)
                for name in ("scores", "learned", "observed")
            )
        )


class GivenRows(RowAttend):
    """The classifying row of chosen layers gets weights from outside.

    Args:
        given: Weights of the chosen attention heads of all chosen layers, shape ``(B, K, L)``.
        batch: See :class:`RowAttend`.
        choice: See :class:`RowAttend`.
    """

    def __init__(self, given: Tensor, batch: Batch, choice: RowChoice) -> None:
        super().__init__(ClassifyingRow().eval(), batch, choice)
        self.given = given

    def replaced(self, number: int, weights: Tensor) -> Tensor:
        """See :meth:`RowAttend.replaced`."""
        count = len(self.heads)
        index = torch.tensor(self.heads, device=weights.device)
        return weights.index_copy(1, index, self.given[:, number * count : (number + 1) * count].to(weights.dtype))


class GivenContext(Attend):
    """A layer whose context is known already.

    Args:
        context: Shape ``(B, M, D)``, of the one position there is.
    """

    def __init__(self, context: Tensor) -> None:
        super().__init__()
        self.context = context

    def attend(self, layer: int, given: Projections) -> Tensor:
        """See :meth:`Attend.attend`."""
        return self.context[:, :, None]
