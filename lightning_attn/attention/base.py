"""Keys to attention weights: what every attention layer does, and the base class of those without a query."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.errors import InputError, adopt_renamed
from lightning_attn.mitigations.base import Mitigation, MitigationCarrier, NoMitigation
from lightning_attn.mitigations.random_attention import RandomAttention, SoftmaxNormal
from lightning_attn.ops.bag_reduce import packed_softmax
from lightning_attn.ops.softmax import attendable, masked_softmax
from lightning_attn.types import Batch, DataSchema


class AttentionLayer(MitigationCarrier):
    """Turns scores into weights, and lets its mitigation decide what the head sees in training.

    Args:
        temperature: Scores are divided by it before softmax; above 1 flattens, below 1 sharpens. Positive.
        attend_special: Whether special tokens may receive attention.

    Raises:
        InputError: ``temperature`` is not positive.
    """

    #: Whether the weights select: in evaluation what is not selected has a weight of 0.
    hard: bool = False
    _schema: DataSchema | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_renamed(cls, attended="attendable", independent="random_counterpart")

    def __init__(self, temperature: float = 1.0, attend_special: bool = False) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"temperature must be positive, got {temperature}.")
        self.temperature = temperature
        self.attend_special = attend_special
        self._carry(NoMitigation())

    @override
    def _carried_mitigation(self) -> Mitigation:
        return cast(Mitigation, self._modules["mitigation"])

    @override
    def set_mitigation(self, mitigation: Mitigation) -> None:
        if self._schema is not None and mitigation is not self.mitigation:
            mitigation.build(self._schema)
        self._carry(mitigation)

    def build_mitigation(self, schema: DataSchema) -> None:
        """Build the mitigation for this data, as every later one; the network calls it when its layers are made."""
        self._schema = schema
        self.mitigation.build(schema)

    def _carry(self, mitigation: Mitigation) -> None:
        nn.Module.__setattr__(self, "mitigation", mitigation)  # registered under its name, where the setter refuses

    @property
    def random_counterpart(self) -> RandomAttention:
        """Weights of the kind that this layer gives, drawn without looking at the text."""
        return SoftmaxNormal()

    @abstractmethod
    def raw_scores(self, keys: Tensor, batch: Batch) -> Tensor:
        """Unnormalised scores, shape ``(B, L)``, from keys ``(B, L, K)`` and what else the batch holds.

        Keys of a packed batch have shape ``(N, K)``; their scores may have the shape ``(N,)`` as well.
        """

    def attendable(self, batch: Batch) -> Batch:
        """The batch as mitigations are to see it: ``special`` is True on what this layer does not attend to."""
        if batch.packed or not self.attend_special:
            return batch
        return batch.replace(special=torch.zeros_like(batch.special))

    def normalise(self, raw: Tensor, scores: Tensor, batch: Batch) -> Tensor:
        """Weights, shape ``(B, L)``, that sum to 1 over what may be attended and are 0 elsewhere: softmax.

        Args:
            raw: Scores divided by the temperature, shape ``(B, L)``, or ``(N,)`` if the batch is packed.
            scores: The same, the lowest float where nothing may be attended, shape ``(B, L)``.
            batch: Says which positions are valid and special.
        """
        if batch.packed:
            return batch.unpack(packed_softmax(raw[:, None], batch).squeeze(1))
        return masked_softmax(scores, attendable(batch, self.attend_special))

    def forward(self, keys: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, learned weights and the weights that the head is to use, each of shape ``(B, L)``.

        Args:
            keys: Shape ``(B, L, K)``, or ``(N, K)`` if the batch is packed.
            batch: Says which positions are valid and special.
        """
        raw = self.raw_scores(keys, batch) / self.temperature
        lowest = torch.finfo(raw.dtype).min
        if batch.packed:
            raw = batch.at_instances(raw) if raw.dim() == 2 else raw
            scores = batch.unpack(raw, fill=lowest)
        else:
            scores = raw.masked_fill(~attendable(batch, self.attend_special), lowest)
        learned = self.normalise(raw, scores, batch)
        observed = self.mitigation.observe(learned, self.attendable(batch)) if self.training else learned
        return scores, learned, observed


class Attention(AttentionLayer):
    """Scores positions by their keys alone.

    Args:
        temperature: See :class:`AttentionLayer`.
        attend_special: See :class:`AttentionLayer`.
    """

    @abstractmethod
    def make_layers(self, key_size: int) -> None:
        """Create the scorer's layers for keys of ``key_size`` numbers; the network calls it."""

    @abstractmethod
    def score(self, keys: Tensor) -> Tensor:
        """Unnormalised scores, shape ``(B, L)`` or ``(N,)``, from keys ``(B, L, K)`` or ``(N, K)``."""

    @override
    def raw_scores(self, keys: Tensor, batch: Batch) -> Tensor:
        return self.score(keys)
