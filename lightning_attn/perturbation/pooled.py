"""Variants under attention pooling: each different key is scored once, and weighted sums share their values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.attention.base import Attention, AttentionLayer
from lightning_attn.attention.query import AdditiveQueryAttention, DotQueryAttention, QueryAttention
from lightning_attn.attention.scorers import AdditiveAttention, DotAttention, GatedAttention, KeylessAttention
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.paired import PairedNetwork
from lightning_attn.networks.pooled import PooledNetwork
from lightning_attn.ops.softmax import attendable, masked_softmax
from lightning_attn.perturbation.keys import KeyFastPath, SharedVectors, Variants
from lightning_attn.perturbation.perturbations import Delete, Overwrite, Perturbation
from lightning_attn.perturbation.reader import VariantReader, hooked, inherits_unchanged
from lightning_attn.types import Batch

#: Score functions that look at one key at a time, so that equal keys of several variants can be scored together.
_POSITIONWISE = (
    AdditiveAttention.score,
    DotAttention.score,
    GatedAttention.score,
    KeylessAttention.score,
    AdditiveQueryAttention.score,
    DotQueryAttention.score,
)

#: Modules without children whose arithmetic is that of PyTorch; one of another type may look at several positions.
_PLAIN = (nn.Embedding, nn.Dropout, nn.Linear, nn.Conv1d, nn.LSTM)

#: From pooled values, shape ``(R, H)``, and the query's vectors, shape ``(R, Q)``, if there are any, to logits.
PooledClassifier = Callable[[Tensor, Tensor | None], Tensor]


class PooledReader(VariantReader):
    """``head( sum_i a_i v_i )`` of variants, with the encoder's own fast path for keys; see :func:`pooled_reader`.

    Under mixed precision it computes in the precision of the weights: sums over tables would be too coarse.
    """

    shares = True

    def __init__(
        self,
        network: PooledNetwork | PairedNetwork,
        keys: KeyFastPath,
        perturbation: Perturbation,
        classifier: PooledClassifier,
    ) -> None:
        self.network = network
        self.keys = keys
        self.perturbation = perturbation
        self.classifier = classifier

    @override
    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
        with torch.autocast(batch.device.type, enabled=False):
            unique, row = torch.unique_consecutive(examples, return_inverse=True)
            query = batch.query_vector
            texts = batch.replace(query=None, query_valid=None, query_vector=None).select(unique)
            used = texts.valid.any(dim=0).nonzero()
            length = max(1, int(used[-1]) + 1 if len(used) else 0)
            texts = texts.shortened(length)
            variants = Variants.from_kept(texts, row, keep[:, :length], isinstance(self.perturbation, Delete))
            embeddings = self._embeddings(texts)
            keys = values = self.keys.keys(embeddings, variants)
            if self.network.encoder.local is not None:
                values = SharedVectors(
                    torch.tanh(self.network.encoder.local(embeddings)).flatten(0, 1), variants.places
                )
            if query is not None:
                query = query[examples].to(embeddings.dtype)
            return self.classifier(values.pool(self._attention(keys, variants, query)), query)

    def _embeddings(self, texts: Batch) -> Tensor:
        """Embeddings of the texts and, as a last column, of what overwritten positions hold; ``(T, L + 1, E)``."""
        words: Tensor = self.network.embed(texts)
        blank = words.new_zeros(1, 1, words.shape[-1])
        if not isinstance(self.perturbation, Delete):
            removed = torch.zeros(1, 1, dtype=torch.bool, device=texts.device)
            one = Batch(texts.inputs[:1, :1], ~removed, removed, texts.target[:1], texts.index[:1])
            blank = self.network.embed(self.perturbation.apply(one, removed, self.network.schema))
        return self.network.encoder.dropout(torch.cat([words, blank.expand(len(texts), 1, -1)], dim=1))  # type: ignore[no-any-return]

    def _attention(self, keys: SharedVectors, variants: Variants, query: Tensor | None) -> Tensor:
        """Weights, shape ``(R, L)``: the arithmetic of :meth:`AttentionLayer.forward`."""
        layer = self.network.attention
        assert isinstance(layer, (Attention, QueryAttention))
        if isinstance(layer, Attention):
            raw = layer.score(keys.table)
        else:
            assert query is not None
            variant = torch.arange(len(query), device=query.device).expand(keys.places.shape[::-1]).t()
            asked = variants.row.new_zeros(len(keys.table)).scatter_(0, keys.places.flatten(), variant.flatten())
            raw = layer.score(keys.table[:, None], query[asked])[:, 0]
        # Nothing but these two decides what may be attended.
        index = variants.texts.index[variants.row]
        stand_in = Batch(keys.places, variants.present, variants.texts.special[variants.row], index, index)
        scores = (raw / layer.temperature)[keys.places]
        return masked_softmax(scores, attendable(stand_in, layer.attend_special))


def pooled_reader(
    network: PooledNetwork | PairedNetwork,
    base: type[AttentionNetwork],
    keys: KeyFastPath | None,
    perturbation: Perturbation,
    classifier: PooledClassifier,
) -> PooledReader | None:
    """The fast path of encoder, attention pooling and classifier; None if the arithmetic of a part is not exactly ours.

    What is asked: the methods of ``base`` are not overridden, the encoder has a fast path, the attention scores
    positions one by one, the perturbation is one of ours, weights are of full precision, and no forward hook listens.

    Args:
        network: The network.
        base: Its class here, whose ``encode`` is the encoder's and whose ``classify`` is ``classifier`` after pooling.
        keys: The fast path of the network's encoder, if it has one.
        perturbation: What happens to removed positions.
        classifier: From pooled values to logits.
    """
    layer = network.attention
    parts = [network.encoder, *(part for name, part in layer.named_children() if name != "mitigation")]
    leaves = [part for whole in parts for part in whole.modules() if not list(part.children())]
    score = getattr(type(layer), "score", None)
    if (
        keys is not None
        and inherits_unchanged(network, base, "embed", "encode", "classify", "forward", "read_query")
        and inherits_unchanged(layer, AttentionLayer, "forward", "normalise")
        and type(layer).raw_scores in (Attention.raw_scores, QueryAttention.raw_scores)
        and score in _POSITIONWISE
        and not {"raw_scores", "score"} & vars(layer).keys()
        and all(type(leaf) in _PLAIN for leaf in leaves)
        and (inherits_unchanged(perturbation, Delete, "apply") or inherits_unchanged(perturbation, Overwrite, "apply"))
        and {parameter.dtype for parameter in network.parameters()} in ({torch.float32}, {torch.float64})
        and not hooked(network)
    ):
        return PooledReader(network, keys, perturbation, classifier)
    return None
