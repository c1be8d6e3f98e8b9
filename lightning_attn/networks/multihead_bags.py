"""Networks of bags with several attention heads: `MultiHeadBagNetwork`, and one head per class: `ClassBagNetwork`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attn.attention.multihead import MultiHeadAttention, MultiHeadGatedAttention
from lightning_attn.encoders.instances import InstanceEncoder
from lightning_attn.errors import InputError
from lightning_attn.networks.bags import InstanceNetwork
from lightning_attn.networks.classifiers import Classifier
from lightning_attn.types import AttentionOutput, Batch, DataSchema


class MultiHeadBagNetwork(InstanceNetwork):
    """``head( [sum_i a_1i v_i, ..., sum_i a_Mi v_i] )``: M attention distributions over the same instances.

    Everybody asks a network for one weight per instance. It is the mean ``a_i`` over the attention heads, and what is
    each one's own is in the values: block m of value i is ``(a_mi / a_i) v_i``, so that ``sum_i a_i v_i`` is exactly
    the pooling of all heads. Given other weights, each attention head follows them in proportion. Whoever gives
    weights, or goes through the values alone, holds the attention fixed, and that of each attention head with it: the
    shares carry no gradient then. The weights of each attention head are in ``AttentionOutput.heads``.

    Random pretraining draws weights for each attention head. Instance weighting estimates the label from the mean
    weights only: what a single attention head tells beyond them, it does not see.

    Source: Ilse, Tomczak and Welling, ICML 2018, https://arxiv.org/abs/1802.04712, with the attention branches of the
    published code; how they become one weight per instance is ours.

    Args:
        encoder: See :class:`InstanceNetwork`.
        attention: Keys to weights of each attention head; None means ``MultiHeadGatedAttention()``.
        head: Pooled values of all attention heads, ``M * H`` numbers, to logits; None means ``LinearClassifier()``.
        heads: M.

    Raises:
        InputError: ``heads`` is below 1.
    """

    attention: MultiHeadAttention

    def __init__(
        self,
        encoder: InstanceEncoder | None = None,
        attention: MultiHeadAttention | None = None,
        head: Classifier | None = None,
        heads: int = 4,
    ) -> None:
        if heads < 1:
            raise InputError(f"heads must be at least 1, got {heads}.")
        super().__init__(encoder, head)
        self.attention = attention or MultiHeadGatedAttention()
        self.heads = heads

    def make_layers(self, schema: DataSchema) -> None:
        """Create encoder, scorers and head for this data."""
        self.encoder.make_layers(schema)
        self.attention.make_layers(self.encoder.size, self.heads)
        self.head.make_layers(self.heads * self.encoder.size, schema.num_classes)

    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, attention: Tensor | None = None
    ) -> AttentionOutput:
        """See :meth:`AttentionNetwork.forward`; values have shape ``(B, L, M * H)``."""
        embeddings = self.embed(batch) if embeddings is None else embeddings
        keys, values = self.encode(embeddings, batch)
        weights = self.attention.heads(keys, batch)
        shares = weights.shares(batch)
        fixed = _blocks(values, shares.detach())
        if attention is None:
            attention = weights.observed.mean(dim=1)
            logits = self.classify(_blocks(values, shares), attention, batch)
        else:
            logits = self.classify(fixed, attention, batch)
        learned = weights.learned.mean(dim=1)
        return AttentionOutput(
            logits, attention, learned, weights.mean_scores(), fixed, weights.observed, weights.scores, keys, embeddings
        )


class ClassBagNetwork(MultiHeadBagNetwork):
    """One attention head per class: the logit of class c is ``w_c . sum_i a_ci v_i + b_c``.

    ``AttentionOutput.heads[:, c]`` is the attention that speaks for class c; their mean is what a network must give to
    those who know of no class. See :class:`MultiHeadBagNetwork`.

    Source: Lu et al., CLAM, Nature Biomedical Engineering 2021, https://arxiv.org/abs/2004.09666, equations 1 to 3 (the
    model with several branches, without its clustering of instances).

    Args:
        encoder: See :class:`InstanceNetwork`.
        attention: Keys to weights of each class; None means ``MultiHeadGatedAttention()``.
    """

    head: _BlockClassifier

    def __init__(self, encoder: InstanceEncoder | None = None, attention: MultiHeadAttention | None = None) -> None:
        super().__init__(encoder, attention, _BlockClassifier())

    def make_layers(self, schema: DataSchema) -> None:
        """Create encoder, scorers and head for this data."""
        self.heads = schema.num_classes
        super().make_layers(schema)


class _BlockClassifier(Classifier):
    """Block c of the pooled values to the logit of class c."""

    def make_layers(self, value_size: int, num_classes: int) -> None:
        self.layers: nn.Linear = nn.Linear(value_size // num_classes, num_classes)

    def forward(self, pooled: Tensor) -> Tensor:
        blocks = pooled.view(len(pooled), *self.layers.weight.shape)
        return torch.einsum("bch,ch->bc", blocks, self.layers.weight) + self.layers.bias


def _blocks(values: Tensor, shares: Tensor) -> Tensor:
    """The values times each attention head's shares side by side, ``(..., M * H)``, from ``(..., H)``, ``(..., M)``."""
    return (shares[..., None] * values[..., None, :]).flatten(-2)
