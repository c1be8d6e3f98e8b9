"""A network of pictures in patches: `PatchNetwork`."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_attn.attention.base import Attention
from lightning_attn.attention.scorers import AdditiveAttention
from lightning_attn.encoders.patches import PatchEncoder
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.classifiers import Classifier, LinearClassifier
from lightning_attn.ops.bag_reduce import weighted_sum
from lightning_attn.types import Batch, DataSchema


class PatchNetwork(AttentionNetwork):
    """``head( sum_i a_i v_i )`` of a picture in patches: which patches matter is decided by someone who sees them all.

    The patches are a set, each with its place as a part of it: their order in the batch says nothing, and a removed
    patch leaves blank paper. Packed batches stay packed, see :class:`InstanceNetwork`.

    Args:
        encoder: Patches to keys and values; None means ``PatchEncoder()``.
        attention: Keys to weights; None means ``AdditiveAttention()``.
        head: Pooled value to logits; None means ``LinearClassifier()``.
    """

    attention: Attention

    def __init__(
        self, encoder: PatchEncoder | None = None, attention: Attention | None = None, head: Classifier | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder or PatchEncoder()
        self.attention = attention or AdditiveAttention()
        self.head = head or LinearClassifier()

    def make_layers(self, schema: DataSchema) -> None:
        """Create encoder, scorer and head for this data.

        Raises:
            InputError: The data are no patches of a picture.
        """
        self.encoder.make_layers(schema)
        self.attention.make_layers(self.encoder.size)
        self.head.make_layers(self.encoder.size, schema.num_classes)

    def embed(self, batch: Batch) -> Tensor:
        """The pixels, shape ``(B, L, P)``: gradients and ablations act on them, and leave a patch where it is."""
        return batch.inputs[..., :-2]

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys and values, each ``(B, L, H)``."""
        keys, values = self.encoder(embeddings, batch)
        return keys, values

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` of the attention-weighted sum of the values."""
        return self.head(weighted_sum(values, attention, batch))  # type: ignore[no-any-return]

    def classify_many(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, V, C)`` in one product, without repeating the values; for padded batches."""
        if type(self).classify is not PatchNetwork.classify:
            return super().classify_many(values, attention, batch)
        logits: Tensor = self.head((attention @ values).flatten(0, 1))
        return logits.view(*attention.shape[:2], logits.shape[-1])

    def value_path(self) -> list[nn.Module]:
        """The encoder's value path and the head."""
        return [*self.encoder.value_path(), self.head]
