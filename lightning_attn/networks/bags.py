"""Networks of bags of instances, without padding: `BagNetwork` and its relatives with one attention head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attn.attention.base import Attention
from lightning_attn.attention.maximum import MaxAttention
from lightning_attn.attention.scorers import GatedAttention
from lightning_attn.encoders.instances import MLP, InstanceEncoder
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.classifiers import Classifier, LinearClassifier, MLPClassifier
from lightning_attn.ops.bag_reduce import weighted_sum
from lightning_attn.types import Batch, DataSchema


class InstanceNetwork(AttentionNetwork):
    """What every network of bags has: an encoder of instances, values that are pooled, and a head.

    Packed batches stay packed: the encoder runs on the N instances there are, and pooling sums over them, so that cost
    and memory are linear in the instances whatever the sizes of the bags; only weights and scores, one number an
    instance, are laid out as ``(B, L)``. Shapes are written for padded batches; packed, embeddings, keys and values
    have N rows in place of ``(B, L)``.

    Args:
        encoder: Instances to keys and values; None means ``MLP()``.
        head: Pooled value to logits; None means ``LinearClassifier()``.
    """

    def __init__(self, encoder: InstanceEncoder | None = None, head: Classifier | None = None) -> None:
        super().__init__()
        self.encoder = encoder or MLP()
        self.head = head or LinearClassifier()

    def embed(self, batch: Batch) -> Tensor:
        """The features themselves, shape ``(B, L, ...)``: gradients and ablations act on them."""
        return batch.inputs

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys and values, the same, shape ``(B, L, H)``."""
        encoded = self.encoder(embeddings)
        return encoded, encoded

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` of the attention-weighted sum of the values."""
        return self.head(weighted_sum(values, attention, batch))  # type: ignore[no-any-return]

    def classify_many(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, V, C)`` in one product, without repeating the values; for padded batches."""
        if type(self).classify is not InstanceNetwork.classify:
            return super().classify_many(values, attention, batch)
        logits: Tensor = self.head((attention @ values).flatten(0, 1))
        return logits.view(*attention.shape[:2], logits.shape[-1])

    def value_path(self) -> list[nn.Module]:
        """The encoder and the head."""
        return [self.encoder, self.head]


class BagNetwork(InstanceNetwork):
    """``head( sum_i a_i v_i )`` of a bag of instances, whose order says nothing: attention-based pooling.

    With :class:`UniformAttention` the head gets the mean of the instances, the control without attention.

    Source: Ilse, Tomczak and Welling, ICML 2018, https://arxiv.org/abs/1802.04712.

    Args:
        encoder: See :class:`InstanceNetwork`.
        attention: Keys to weights; None means ``GatedAttention()``.
        head: See :class:`InstanceNetwork`.
    """

    attention: Attention

    def __init__(
        self, encoder: InstanceEncoder | None = None, attention: Attention | None = None, head: Classifier | None = None
    ) -> None:
        super().__init__(encoder, head)
        self.attention = attention or GatedAttention()

    def make_layers(self, schema: DataSchema) -> None:
        """Create encoder, scorer and head for this data."""
        self.encoder.make_layers(schema)
        self.attention.make_layers(self.encoder.size)
        self.head.make_layers(self.encoder.size, schema.num_classes)


class MaxBagNetwork(InstanceNetwork):
    """``head( max_i v_i )``, each feature's largest value in the bag: the max pooling control.

    Its attention is what max pooling amounts to, see :class:`MaxAttention`: instance i has the weight ``a_i``, the mean
    over the H features of ``a_hi``, one at the instance that holds the maximum of feature h. With values
    ``(a_hi / a_i) v_hi`` the weighted sum is exactly the maximum.

    Args:
        encoder: See :class:`InstanceNetwork`.
        head: See :class:`InstanceNetwork`.
    """

    attention: MaxAttention

    def __init__(self, encoder: InstanceEncoder | None = None, head: Classifier | None = None) -> None:
        super().__init__(encoder, head)
        self.attention = MaxAttention()

    def make_layers(self, schema: DataSchema) -> None:
        """Create encoder and head for this data."""
        self.encoder.make_layers(schema)
        self.head.make_layers(self.encoder.size, schema.num_classes)

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys, shape ``(B, L, H)``, and values scaled to each feature's share of the weight, same shape."""
        keys, values = super().encode(embeddings, batch)
        weights = self.attention.feature_weights(keys, batch)
        mean = weights.mean(dim=-1, keepdim=True)
        # An instance that holds no maximum has weight 0; given weight from outside, it counts as it is.
        shares = torch.where(mean > 0, weights / mean.where(mean > 0, 1.0), 1.0)
        return keys, values * shares


class AdditiveBagNetwork(BagNetwork):
    """``sum_i head(a_i v_i)``: the logits are a sum of what each instance contributes, see :meth:`contributions`.

    Source: Javed et al., Additive MIL, NeurIPS 2022, https://arxiv.org/abs/2206.01794, equation 4.

    Args:
        encoder: See :class:`BagNetwork`.
        attention: See :class:`BagNetwork`.
        head: Weighted value of one instance to its share of the logits; None means ``MLPClassifier()``, because with a
            linear one the sum would be that of a :class:`BagNetwork`, but for the bias.
    """

    def __init__(
        self, encoder: InstanceEncoder | None = None, attention: Attention | None = None, head: Classifier | None = None
    ) -> None:
        super().__init__(encoder, attention, head or MLPClassifier())

    def contributions(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """What each instance adds to the logits, shape ``(B, L, C)``, or ``(N, C)`` if the batch is packed.

        Args:
            values: Shape ``(B, L, H)``, or ``(N, H)``.
            attention: Shape ``(B, L)``.
            batch: Says where instances stand.
        """
        return self.head(batch.at_instances(attention)[..., None] * values)  # type: ignore[no-any-return]

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)``, the sum of the contributions."""
        added = self.contributions(values, attention, batch)
        return weighted_sum(added, batch.valid.to(added.dtype), batch)
