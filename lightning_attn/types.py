"""The shapes that cross folders: `Batch`, `AttentionOutput`, `DataSchema`, and the error for a user's mistake."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class InputError(ValueError):
    """A mistake in what the user gave: a file, a column, a configuration key, a checkpoint.

    Its message is one sentence that says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with status 2; every other exception is a bug of ours and keeps its traceback.
    """


@dataclass
class Batch:
    """A padded batch of texts or bags. B examples, L positions, M query positions, C classes.

    Attributes:
        inputs: Token ids, shape ``(B, L)``, int64; or instance features, shape ``(B, L, ...)``, float.
        valid: True where a real token or instance stands, shape ``(B, L)``, bool. Never called "mask".
        special: True on [CLS], [SEP], ``<s>``, ``</s>``: never perturbed, never scored; shape ``(B, L)``, bool.
        target: Class index, shape ``(B,)``, int64; or one 0/1 column a class, shape ``(B, C)``, float (multi-label).
        index: Row in the data set split, shape ``(B,)``, int64.
        evidence: Ground-truth importance in [0, 1], NaN where unknown, shape ``(B, L)``; None if the data has none.
        query: Token ids of a hypothesis or question, shape ``(B, M)``; None for single texts.
        query_valid: True on the real positions of ``query``, shape ``(B, M)``.
        query_vector: What a network made of ``query``, shape ``(B, Q)``, so that it reads it once however often the
            text is changed; only :meth:`AttentionNetwork.read_query` sets it, and it belongs to that network.
    """

    inputs: Tensor
    valid: Tensor
    special: Tensor
    target: Tensor
    index: Tensor
    evidence: Tensor | None = None
    query: Tensor | None = None
    query_valid: Tensor | None = None
    query_vector: Tensor | None = None

    def __len__(self) -> int:
        """Number of examples B."""
        return self.valid.shape[0]

    @property
    def inner(self) -> Tensor:
        """Positions that may be attended, ranked and perturbed: ``valid`` and not ``special``, shape ``(B, L)``."""
        return self.valid & ~self.special

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.valid.device

    def apply(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A new batch with ``function`` applied to every tensor that is present."""
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed = {name: function(tensor) for name, tensor in tensors.items() if tensor is not None}
        return dataclasses.replace(self, **changed)

    def select(self, rows: Tensor) -> Batch:
        """The examples at ``rows``, int64 positions in the batch or a bool per example, padding kept."""
        return self.apply(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        return self.apply(lambda tensor: tensor.to(device))

    def replace(self, **changes: Any) -> Batch:
        """A copy with some fields exchanged."""
        return dataclasses.replace(self, **changes)


@dataclass
class AttentionOutput:
    """What a network computed for a batch; nobody needs a hook to look inside.

    Attributes:
        logits: Shape ``(B, C)``.
        attention: Weights the head used: they sum to 1 over ``valid`` and are 0 elsewhere, shape ``(B, L)``.
        learned: Weights the scorer produced, before a mitigation replaced them, shape ``(B, L)``.
        scores: Before softmax; the lowest float of the dtype where nothing may be attended, shape ``(B, L)``.
        values: What the weights multiply, shape ``(B, L, H)``.
    """

    logits: Tensor
    attention: Tensor
    learned: Tensor
    scores: Tensor
    values: Tensor


@dataclass(frozen=True)
class DataSchema:
    """What a network must know of the data before its layers can be made. Plain values: every checkpoint stores it.

    Attributes:
        num_classes: C, at least 2 (or 1 and more for multi-label).
        class_names: One name a class, in the order of the logits.
        multi_label: True if an example may belong to several classes (sigmoid outputs), False for softmax outputs.
        vocabulary_size: Number of token ids, None where inputs are features.
        pad_id: Token id that fills padding.
        replacement_id: Token id that the ``mask`` perturbation writes: the tokenizer's [MASK], else ``<unk>``.
        feature_shape: Shape of one instance's features, None where inputs are token ids.
        query_vocabulary_size: Number of token ids of queries, None for single texts.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    vocabulary_size: int | None = None
    pad_id: int = 0
    replacement_id: int = 1
    feature_shape: tuple[int, ...] | None = None
    query_vocabulary_size: int | None = None

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities, same shape as ``logits`` ``(..., C)``: softmax, or sigmoid if ``multi_label``."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; ``DataSchema(**schema.as_dict())`` restores it."""
        return dataclasses.asdict(self)
