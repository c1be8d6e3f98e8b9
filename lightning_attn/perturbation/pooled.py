"""Variants under attention pooling: each different key is scored once, and weighted sums share their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_attn.attention.base import Attention, AttentionLayer
from lightning_attn.attention.query import AdditiveQueryAttention, DotQueryAttention, QueryAttention
from lightning_attn.attention.scorers import AdditiveAttention, DotAttention, GatedAttention, KeylessAttention
from lightning_attn.encoders.base import Encoder
from lightning_attn.ops.softmax import attendable, masked_softmax
from lightning_attn.perturbation.removal import Removal, follows, hooked
from lightning_attn.perturbation.sweep import Delete, Overwrite, Perturbation
from lightning_attn.perturbation.variants import KeyShortcut, Nodes, Variants
from lightning_attn.types import Batch

if TYPE_CHECKING:
    from lightning_attn.networks.base import AttentionNetwork

#: Score functions that look at one key at a time, so that equal keys of several variants can be scored together.
_POSITIONWISE = (
    AdditiveAttention.score,
    DotAttention.score,
    GatedAttention.score,
    KeylessAttention.score,
    AdditiveQueryAttention.score,
    DotQueryAttention.score,
)

#: Modules without children whose arithmetic is known; one of another type may look at several positions.
_PLAIN = (nn.Embedding, nn.Dropout, nn.Linear, nn.Conv1d, nn.LSTM)

#: From pooled values, shape ``(R, H)``, and the query's vectors, shape ``(R, Q)``, if there are any, to logits.
ReadOut = Callable[[Tensor, Tensor | None], Tensor]


class PooledRemoval(Removal):
    """``head( sum_i a_i v_i )`` of variants, with the encoder's own shortcut for keys; see :func:`pooled_removal`.

    Under mixed precision it computes in the precision of the weights: sums over tables would be too coarse.
    """

    shares = True

    def __init__(
        self, network: AttentionNetwork, encoder: Encoder, keys: KeyShortcut, perturbation: Perturbation, head: ReadOut
    ) -> None:
        self.network = network
        self.encoder = encoder
        self.keys = keys
        self.perturbation = perturbation
        self.head = head

    def logits(self, batch: Batch, examples: Tensor, keep: Tensor) -> Tensor:
        """See :meth:`Removal.logits`."""
        with torch.autocast(batch.device.type, enabled=False):
            chosen, row = torch.unique_consecutive(examples, return_inverse=True)
            query = batch.query_vector
            texts = batch.replace(query=None, query_valid=None, query_vector=None).select(chosen)
            used = texts.valid.any(dim=0).nonzero()
            length = max(1, int(used[-1]) + 1 if len(used) else 0)
            texts = texts.shortened(length)
            variants = Variants.of(texts, row, keep[:, :length], isinstance(self.perturbation, Delete))
            embeddings = self._embeddings(texts)
            keys = values = self.keys.keys(embeddings, variants)
            if self.encoder.local is not None:
                values = Nodes(torch.tanh(self.encoder.local(embeddings)).flatten(0, 1), variants.places)
            if query is not None:
                query = query[examples].to(embeddings.dtype)
            return self.head(values.pool(self._attention(keys, variants, query)), query)

    def _embeddings(self, texts: Batch) -> Tensor:
        """Embeddings of the texts and, as a last column, of what overwritten positions hold; ``(T, L + 1, E)``."""
        words: Tensor = self.network.embed(texts)
        blank = words.new_zeros(1, 1, words.shape[-1])
        if not isinstance(self.perturbation, Delete):
            removed = torch.zeros(1, 1, dtype=torch.bool, device=texts.device)
            one = Batch(texts.inputs[:1, :1], ~removed, removed, texts.target[:1], texts.index[:1])
            blank = self.network.embed(self.perturbation.apply(one, removed, self.network.schema))
        return self.encoder.dropout(torch.cat([words, blank.expand(len(texts), 1, -1)], dim=1))  # type: ignore[no-any-return]

    def _attention(self, keys: Nodes, variants: Variants, query: Tensor | None) -> Tensor:
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


def pooled_removal(
    network: AttentionNetwork,
    known: type[AttentionNetwork],
    encoder: Encoder,
    perturbation: Perturbation,
    head: ReadOut,
) -> PooledRemoval | None:
    """A shortcut for a network of encoder, attention pooling and head; None if something in it is not known exactly.

    What is asked: the methods of ``known`` are not overridden, the encoder offers a shortcut, the attention scores
    positions one by one, the perturbation is one of ours, weights are of full precision, and no forward hook listens.

    Args:
        network: The network that asks.
        known: The class that calls this, whose ``encode`` is the encoder's and whose ``classify`` is ``head``.
        encoder: Of the texts.
        perturbation: What happens to removed positions.
        head: What ``known.classify`` does after pooling.
    """
    shortcut = encoder.removal() if isinstance(encoder, Encoder) else None
    layer = network.attention
    parts = [encoder, *(part for name, part in layer.named_children() if name != "mitigation")]
    leaves = [part for whole in parts for part in whole.modules() if not list(part.children())]
    scores = getattr(type(layer), "score", None)
    if (
        shortcut is not None
        and follows(network, known, "embed", "encode", "classify", "forward", "read_query")
        and follows(layer, AttentionLayer, "forward", "normalise")
        and type(layer).raw_scores in (Attention.raw_scores, QueryAttention.raw_scores)
        and scores in _POSITIONWISE
        and not {"raw_scores", "score"} & vars(layer).keys()
        and all(type(leaf) in _PLAIN for leaf in leaves)
        and (follows(perturbation, Delete, "apply") or follows(perturbation, Overwrite, "apply"))
        and {parameter.dtype for parameter in network.parameters()} in ({torch.float32}, {torch.float64})
        and not hooked(network)
    ):
        return PooledRemoval(network, encoder, shortcut, perturbation, head)
    return None
