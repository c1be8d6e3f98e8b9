"""Attention that selects what another model reads: `SelectorNetwork` for texts, and its twins for pictures and bags."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.attention.base import Attention
from lightning_attn.attention.scorers import AdditiveAttention
from lightning_attn.attention.selection import TopKSelection
from lightning_attn.encoders.base import Encoder
from lightning_attn.encoders.bilstm import BiLSTM
from lightning_attn.encoders.instances import MLP, InstanceEncoder
from lightning_attn.encoders.patches import PatchEncoder, PictureCNN
from lightning_attn.errors import InputError
from lightning_attn.mitigations.random_attention import BernoulliShare, RandomAttention
from lightning_attn.networks.bags import InstanceNetwork
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.classifiers import Classifier, LinearClassifier
from lightning_attn.types import Batch, DataSchema


class MaskingNetwork(AttentionNetwork):
    """``head(reader(mask_i * x_i))``: the selector sees the whole input, the reader what the mask lets through.

    This is ``Attention(Q, K, V) = Mask(Q, K) * V`` with any model after it, the setting in which Bai et al. tried
    their mitigations and in which shortcuts are large: reader and selector learn together, and can agree on a code in
    which the mask says the answer by itself. Each position is multiplied by its weight times the number of positions
    that have any, so that even weights, over everything or over a selection, leave what they keep as it is: a selection
    is a mask of ones and zeros, and nothing of what it leaves out reaches the reader.

    Source: Bai et al., KDD 2021, https://arxiv.org/abs/2006.05656, introduction; L2X (Chen et al., ICML 2018,
    https://arxiv.org/abs/1802.07814) and REAL-X (Jethani et al., AISTATS 2021, https://arxiv.org/abs/2103.01890).
    """

    attention: Attention
    head: Classifier

    @property
    @override
    def random_counterpart(self) -> RandomAttention:
        """For selections, subsets whose share is drawn for each example.

        A reader that has met subsets of every size reads the selector's well; one that has met subsets of one size
        does not (see results/selection.md). Pooled values, which know no context, are another matter.
        """
        return BernoulliShare() if self.attention.hard else super().random_counterpart

    def mask(self, attention: Tensor) -> Tensor:
        """What each position is multiplied by, shape ``(B, L)``: 1 everywhere that even weights reach."""
        return attention * (attention > 0).sum(dim=-1, keepdim=True)


class SelectorNetwork(MaskingNetwork):
    """A selector of words, and a reader of the text in which the other words are blank. See :class:`MaskingNetwork`.

    Selector and reader share the word embeddings. Special tokens of a tokenizer stay unless the attention covers them.

    Args:
        encoder: The selector: makes keys, and owns the embedding; its values are not used. None means ``BiLSTM()``.
        reader: Reads masked embeddings of the encoder's ``embedding_size``; None means ``BiLSTM()``. With a
            ``PretrainedEncoder``, give the same model as the encoder.
        attention: Keys to weights; None means ``TopKSelection()``.
        head: Pooled states to logits; None means ``LinearClassifier()``.
        blank: What stands where nothing was selected: ``zero``, an embedding of zeros, or ``replacement``, that of the
            tokenizer's [MASK] or of ``<unk>``, which a pretrained reader knows.

    Raises:
        InputError: Encoder and reader have embeddings of different sizes.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        reader: Encoder | None = None,
        attention: Attention | None = None,
        head: Classifier | None = None,
        blank: Literal["zero", "replacement"] = "zero",
    ) -> None:
        super().__init__()
        self.encoder = encoder or BiLSTM()
        self.reader = reader or BiLSTM()
        self._check_sizes()
        self.attention = attention or TopKSelection()
        self.head = head or LinearClassifier()
        self.blank = blank

    def _check_sizes(self) -> None:
        if self.encoder.embedding_size != self.reader.embedding_size:
            raise InputError(
                f"The reader reads the encoder's embeddings of {self.encoder.embedding_size} numbers, but has an "
                f"embedding_size of {self.reader.embedding_size}; give both the same."
            )

    @override
    def make_layers(self, schema: DataSchema) -> None:
        self.encoder.make_layers(schema)
        if self.reader.pretrained:
            self.reader.make_layers(schema)
        self._check_sizes()  # those of pretrained encoders are known now
        self.attention.make_layers(self.encoder.size)
        self.head.make_layers(self.reader.size, schema.num_classes)

    @override
    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings, shape ``(B, L, E)``."""
        return self.encoder.embed(batch)

    @override
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys, shape ``(B, L, K)``, and as values the embeddings, shape ``(B, L, E)``."""
        embeddings = self.encoder.dropout(embeddings)
        return self.encoder.contextualise(embeddings, batch), embeddings

    @override
    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` of what the reader makes of masked embeddings: an encoder pass, unlike elsewhere."""
        mask = self.mask(attention)
        if not self.attention.attend_special:
            mask = torch.where(batch.special & batch.valid, torch.ones_like(mask), mask)
        masked = values * mask[..., None]
        if self.blank == "replacement":
            masked = masked + (1 - mask)[..., None] * self._replacement(batch)
        states = self.reader.contextualise(masked.to(values.dtype), batch)
        return self.head(self.reader.pool(states, batch.valid))  # type: ignore[no-any-return]

    def _replacement(self, batch: Batch) -> Tensor:
        """Embedding of the token that stands for nothing, shape ``(1, 1, E)``."""
        token = batch.replace(inputs=torch.full_like(batch.inputs[:1, :1], self.schema.replacement_id))
        return self.encoder.embed(token)

    @override
    def value_path(self) -> list[nn.Module]:
        """Embedding, reader and head; of the encoder, only what makes keys is left to the scorer."""
        return [self.encoder.words, self.encoder.dropout, self.reader, self.head]

    @override
    def load_word_vectors(self, vectors: Tensor) -> None:
        self.encoder.load_word_vectors(vectors)


class MaskedInputNetwork(SelectorNetwork):
    """A :class:`SelectorNetwork` whose attention is soft unless another one is given.

    The third place for the mask, beside local values, which know no context, and contextual ones, which have seen all
    of the text before the mask comes.

    Args:
        encoder: See :class:`SelectorNetwork`.
        reader: See :class:`SelectorNetwork`.
        attention: Keys to weights; None means ``AdditiveAttention()``.
        head: See :class:`SelectorNetwork`.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        reader: Encoder | None = None,
        attention: Attention | None = None,
        head: Classifier | None = None,
    ) -> None:
        super().__init__(encoder, reader, attention or AdditiveAttention(), head)


class PictureSelectorNetwork(MaskingNetwork):
    """A selector of patches, and a reader of the picture in which the other patches are blank paper.

    With ``UniformAttention`` the reader sees the whole picture: an ordinary convolutional network, such as one to
    explain. See :class:`MaskingNetwork`.

    Args:
        encoder: The selector: its keys see the picture; None means ``PatchEncoder(values="contextual")``.
        reader: Reads the masked picture; None means ``PictureCNN()``.
        attention: Keys to weights; None means ``TopKSelection()``.
        head: What the reader says to logits; None means ``LinearClassifier()``.
    """

    def __init__(
        self,
        encoder: PatchEncoder | None = None,
        reader: PictureCNN | None = None,
        attention: Attention | None = None,
        head: Classifier | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder or PatchEncoder(values="contextual")
        self.reader = reader or PictureCNN()
        self.attention = attention or TopKSelection()
        self.head = head or LinearClassifier()

    @override
    def make_layers(self, schema: DataSchema) -> None:
        """Create selector, reader and head for pictures of this size.

        Raises:
            InputError: The data are no patches of a picture.
        """
        self.encoder.make_layers(schema)
        self.reader.make_layers(schema)
        self.attention.make_layers(self.encoder.size)
        self.head.make_layers(self.reader.size, schema.num_classes)

    @override
    def embed(self, batch: Batch) -> Tensor:
        """The pixels, shape ``(B, L, P)``: gradients and ablations act on them, and leave a patch where it is."""
        return batch.inputs[..., :-2]

    @override
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys, shape ``(B, L, K)``, and as values the pixels, shape ``(B, L, P)``."""
        return self.encoder(embeddings, batch)[0], embeddings

    @override
    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` of what the reader makes of the masked picture."""
        masked = values * batch.at_instances(self.mask(attention))[..., None].to(values.dtype)
        return self.head(self.reader(masked, batch))  # type: ignore[no-any-return]

    @override
    def value_path(self) -> list[nn.Module]:
        """Reader and head; the selector has pixels of its own to look at."""
        return [self.reader, self.head]


class BagSelectorNetwork(InstanceNetwork):
    """A selector of instances, and a reader of the bag of those that were selected, pooled by their mean.

    Unlike a ``BagNetwork``, selector and reader share nothing: what the selector knows of an instance reaches the
    logits through the selection alone. Values know their instance alone, so there is no mask on the input: the weights
    of what is left out are 0. Packed batches stay packed.

    Args:
        encoder: The selector: instances to keys; None means ``MLP()``.
        reader: Instances to values; None means ``MLP()``.
        attention: Keys to weights; None means ``TopKSelection()``.
        head: Pooled value to logits; None means ``LinearClassifier()``.
    """

    def __init__(
        self,
        encoder: InstanceEncoder | None = None,
        reader: InstanceEncoder | None = None,
        attention: Attention | None = None,
        head: Classifier | None = None,
    ) -> None:
        super().__init__(encoder, head)
        self.reader = reader or MLP()
        self.attention: Attention = attention or TopKSelection()

    @override
    def make_layers(self, schema: DataSchema) -> None:
        self.encoder.make_layers(schema)
        self.reader.make_layers(schema)
        self.attention.make_layers(self.encoder.size)
        self.head.make_layers(self.reader.size, schema.num_classes)

    @override
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys of the selector and values of the reader, shape ``(B, L, H)`` each."""
        return self.encoder(embeddings), self.reader(embeddings)

    @override
    def value_path(self) -> list[nn.Module]:
        """Reader and head."""
        return [self.reader, self.head]
