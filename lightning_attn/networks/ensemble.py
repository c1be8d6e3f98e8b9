"""Several trained networks as one: `AttentionEnsemble`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.attention.base import AttentionLayer
from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import Mitigation, NoMitigation
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.combinations import NEVER, Combination, MeanProbability
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import AttentionOutput, Batch, DataSchema

_TRAINED = "An AttentionEnsemble is not trained itself: `lightning ensemble` trains its members."


class AttentionEnsemble(AttentionNetwork):
    """K networks that answer together: one attention and one output, combined from theirs. For evaluation only.

    It keeps the contract of every network, so every metric, attribution and callback takes it as one. Its weights are
    the members' combined ones; what is each member's own goes into the values: beside the member's value, position i
    holds the member's share ``r_ki = a_ki / a_i``, and member k classifies with the weights ``a_i r_ki``. Given the
    ensemble's own attention, that is exactly what the member does by itself; given other weights, each member's follow
    them in proportion. Where the attention is the mean, the members' weights average to what was given.

    Keys are the members' log-weights, one number per member. Members may be of different architectures, but must be
    made for the same data. They are run one after the other: their layers differ, recurrent ones cannot be run side by
    side, and there are few of them. An ensemble is put into evaluation mode when it is made.

    Example:
        >>> ensemble = AttentionEnsemble([one.network, other.network])  # doctest: +SKIP
        >>> ensemble(batch).attention  # doctest: +SKIP

    Source: the proposal of Haab, Deutschmann and Rodriguez Martinez, XKDD 2022, https://arxiv.org/abs/2207.13018; how
    members are combined is reconstructed.

    Args:
        members: At least one network. Those that have layers must have them for the same data; the others get theirs
            in :meth:`build`.
        combination: How attention and outputs are combined; None means ``MeanProbability()``.

    Raises:
        InputError: There is no member, or members were made for different data.
    """

    attention: CombinedAttention
    untrainable = _TRAINED

    def __init__(self, members: list[AttentionNetwork], combination: Combination | None = None) -> None:
        super().__init__()
        if not members:
            raise InputError("An AttentionEnsemble needs at least one member.")
        self.members = nn.ModuleList(members)
        self.attention = CombinedAttention(combination or MeanProbability())
        self.eval()
        if all(member.built for member in members):
            self.build(members[0].schema)

    @property
    def combination(self) -> Combination:
        """How attention and outputs are combined."""
        return self.attention.combination

    @property
    def reads_query(self) -> bool:
        """Whether some member does."""
        return any(member.reads_query for member in self.networks)

    def make_layers(self, schema: DataSchema) -> None:
        """Make the layers of the members that have none.

        Raises:
            InputError: A member has layers for other data.
        """
        for number, member in enumerate(self.networks):
            _check_same_data(number, member.build(schema).schema, schema)
        self._sizes = [_sizes(member) for member in self.networks]
        self.eval()  # layers that are new are in training mode

    def read_query(self, batch: Batch) -> Batch:
        """The batch with the members' query vectors side by side; the batch itself where no member reads a query."""
        if batch.query_vector is not None or not self.reads_query:
            return batch
        vectors = [member.read_query(batch).query_vector for member in self.networks]
        return batch.replace(query_vector=torch.cat([vector for vector in vectors if vector is not None], dim=-1))

    def embed(self, batch: Batch) -> Tensor:
        """The members' embeddings side by side, ``(B, L, sum of E)``; those of more dimensions are flattened."""
        batch = self.read_query(batch)
        embeddings = [member.embed(part) for member, part in self.each_member(batch)]
        return torch.cat([part.flatten(_places(batch)) for part in embeddings], dim=-1)

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The members' log-weights, ``(B, L, K)``, and their values and shares, ``(B, L, sum of H + K)``."""
        batch = self.read_query(batch)
        own = torch.split(embeddings, [math.prod(size.embedding) for size in self._sizes], dim=-1)
        outputs = [
            member(part, embeddings=piece.reshape(*piece.shape[:-1], *size.embedding))
            for (member, part), piece, size in zip(self.each_member(batch), own, self._sizes, strict=True)
        ]
        log_weights = torch.stack([_log_weights(output) for output in outputs], dim=-1)
        combined = self.attention.raw_scores(log_weights, batch).log_softmax(dim=-1)
        # Where nobody looks the shares are 1: weights put there by somebody else reach all members alike.
        shares = (log_weights - combined[..., None]).masked_fill(combined[..., None] <= NEVER, 0.0).exp()
        shares = shares[batch.valid] if batch.packed else shares
        return log_weights, torch.cat([*(output.values for output in outputs), shares], dim=-1)

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Combined logits ``(B, C)`` from what :meth:`encode` made of the batch and weights ``(B, L)``."""
        batch = self.read_query(batch)
        *own, shares = self._split(values)
        weights = attention[..., None] * batch.unpack(shares)
        logits = [
            _full(member.classify(value, weight, part))
            for (member, part), value, weight in zip(self.each_member(batch), own, weights.unbind(dim=-1), strict=True)
        ]
        return self.combination.logits(torch.stack(logits, dim=-1), self.schema.multi_label)

    def classify_many(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Combined logits ``(B, V, C)`` of each example under V attentions ``(B, V, L)``."""
        batch = self.read_query(batch)
        *own, shares = self._split(values)
        logits = [
            _full(member.classify_many(value, attention * share[:, None], part)).flatten(0, 1)
            for (member, part), value, share in zip(self.each_member(batch), own, shares.unbind(dim=-1), strict=True)
        ]
        combined = self.combination.logits(torch.stack(logits, dim=-1), self.schema.multi_label)
        return combined.view(*attention.shape[:2], -1)

    @override
    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, attention: Tensor | None = None
    ) -> AttentionOutput:
        output = super().forward(batch, embeddings=embeddings, attention=attention)
        # The logits above depend on the embeddings through the shares too. Whoever holds the attention fixed and goes
        # through the values alone means the members' attention, and so the shares.
        *own, shares = self._split(output.values)
        return dataclasses.replace(output, values=torch.cat([*own, shares.detach()], dim=-1))

    def member_log_weights(self, batch: Batch) -> Tensor:
        """Logarithm of each member's attention, shape ``(K, B, L)``; :data:`NEVER` where a member cannot attend.

        In the logarithm, saturated attention keeps its order: what disagreement is measured on.
        """
        batch = self.read_query(batch)
        return torch.stack([_log_weights(member(part)) for member, part in self.each_member(batch)])

    @property
    def networks(self) -> list[AttentionNetwork]:
        """The members."""
        return cast(list[AttentionNetwork], list(self.members))

    def each_member(self, batch: Batch) -> Iterator[tuple[AttentionNetwork, Batch]]:
        """Every member, and the batch with the query vector that this member made."""
        vectors: Sequence[Tensor | None] = [None] * len(self.members)
        if batch.query_vector is not None:
            vectors = torch.split(batch.query_vector, [size.query for size in self._sizes], dim=-1)
        for member, size, vector in zip(self.networks, self._sizes, vectors, strict=True):
            yield member, batch.replace(query_vector=vector if size.query else None)

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Each member's values, and the shares."""
        return torch.split(values, [*(size.value for size in self._sizes), len(self.members)], dim=-1)


class CombinedAttention(AttentionLayer):
    """Keys that are log-weights of members, to the scores of their combination.

    Args:
        combination: How the members' attention is combined.
    """

    def __init__(self, combination: Combination) -> None:
        super().__init__(attend_special=True)  # which special tokens may be attended, each member has decided
        self.combination = combination

    @override
    def set_mitigation(self, mitigation: Mitigation) -> None:
        if not isinstance(mitigation, NoMitigation):
            raise InputError(f"{_TRAINED} It takes no mitigation: set model.init_args.mitigation to null.")

    def attendable(self, batch: Batch) -> Batch:
        """The batch itself: members may differ in which special tokens they attend to."""
        return batch

    def raw_scores(self, keys: Tensor, batch: Batch) -> Tensor:
        """Logarithm of the combined weights, up to a constant, shape ``(B, L)``, from log-weights ``(B, L, K)``."""
        nobody = (keys <= NEVER).all(dim=-1)
        return self.combination.attention(keys).masked_fill(nobody, torch.finfo(keys.dtype).min)


class _Sizes(NamedTuple):
    """What a member makes of a position, and of a query."""

    embedding: tuple[int, ...]
    value: int
    query: int


def _sizes(member: AttentionNetwork) -> _Sizes:
    """By showing the member one position, so that any network will do."""
    schema = member.schema
    like = next(member.parameters(), torch.zeros(()))
    one = torch.ones(1, 1, dtype=torch.bool)
    token = torch.full((1, 1), schema.replacement_id)
    batch = Batch(
        inputs=token if schema.feature_shape is None else torch.zeros(1, 1, *schema.feature_shape, dtype=like.dtype),
        valid=one,
        special=~one,
        target=torch.zeros(1, dtype=torch.int64),
        index=torch.zeros(1, dtype=torch.int64),
        query=None if schema.query_vocabulary_size is None else token,
        query_valid=None if schema.query_vocabulary_size is None else one,
    ).to(like.device)
    with evaluating(member), torch.no_grad():
        batch = member.read_query(batch)
        embeddings = member.embed(batch)
        values = member(batch, embeddings=embeddings).values
    query = 0 if batch.query_vector is None else batch.query_vector.shape[-1]
    return _Sizes(embeddings.shape[2:], values.shape[-1], query)


def _places(batch: Batch) -> int:
    """Number of dimensions that say where a position stands."""
    return 1 if batch.packed else 2


def _log_weights(output: AttentionOutput) -> Tensor:
    """Logarithm of a network's weights, also of those too small for a float, from the scores; shape ``(B, L)``."""
    smallest = torch.finfo(torch.float32).tiny
    weights, scores = _full(output.attention), _full(output.scores)
    lowest = torch.finfo(output.scores.dtype).min
    faint = scores.log_softmax(dim=-1).clamp(min=NEVER / 2, max=math.log(smallest))
    logs = torch.where(weights > smallest, weights.clamp(min=smallest).log(), faint)
    return logs.masked_fill((scores <= lowest) & (weights == 0), NEVER)


def _full(tensor: Tensor) -> Tensor:
    """At least single precision: logarithms and exponentials of mixed precision would lose the contract."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_same_data(number: int, member: DataSchema, schema: DataSchema) -> None:
    for field in dataclasses.fields(DataSchema):
        expected, actual = getattr(schema, field.name), getattr(member, field.name)
        if expected != actual:
            raise InputError(
                f"The members of an ensemble must be made for the same data, but member {number} has {field.name} "
                f"{actual} where the ensemble has {expected}."
            )
