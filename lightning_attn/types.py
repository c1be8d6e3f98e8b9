"""What crosses folders: `Batch`, `AttentionOutput`, `DataSchema`, and what a mitigation may ask of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_attn.errors import InputError


@dataclass
class Batch:
    """A batch of texts or bags. B examples, L positions, M query positions, C classes.

    Texts are padded. Bags may be ``packed``: only the N instances that exist are stored, so that a bag of 5,000 and a
    bag of 5 in one batch cost what their instances cost. Every other field has the same shape either way.

    Attributes:
        inputs: Token ids, shape ``(B, L)``, int64; or instance features, shape ``(B, L, ...)``, float; or, if
            ``packed``, shape ``(N, ...)``, in the order of ``valid`` read row by row, with ``N = valid.sum()``.
        valid: True where a real token or instance stands, shape ``(B, L)``, bool. Never called "mask".
        special: True on [CLS], [SEP], ``<s>``, ``</s>``: never perturbed, never scored; shape ``(B, L)``, bool.
        target: Class index, shape ``(B,)``, int64; or one 0/1 column per class, shape ``(B, C)``, float (multi-label);
            or first and last position of an answer, both 0 for none, shape ``(B, 2)``, int64. While a network learns to
            say what a black box says, mitigations and losses get its class probabilities, shape ``(B, C)``, float.
        index: Row in the data set split, shape ``(B,)``, int64.
        evidence: Ground-truth importance in [0, 1], NaN where unknown, shape ``(B, L)``; None if the data has none.
        query: Token ids of a hypothesis or question, shape ``(B, M)``; None for single texts.
        query_valid: True on the real positions of ``query``, shape ``(B, M)``.
        query_vector: What a network made of ``query``, shape ``(B, Q)``, so that it reads it once however often the
            text is changed; only :meth:`AttentionNetwork.read_query` sets it, and it belongs to that network.
        segments: Token types as the tokenizer numbers the texts of a pair that is read as one, shape ``(B, L)``, int64;
            None where there is one text. It is 0 on padding.
        packed: Whether ``inputs`` leaves padding out; nothing is special then. Whatever perturbs, attributes or
            measures works on :meth:`padded`; a network that cannot read packed inputs calls it too.
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
    segments: Tensor | None = None
    packed: bool = False

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
        """A new batch with ``function`` applied to every tensor that is present.

        Args:
            function: Any, for a padded batch. A packed batch has rows of two kinds, bags and instances, so only
                functions that change no shape make sense there: clone, move, cast. See :meth:`select` for rows.

        Raises:
            ValueError: The batch is packed and ``function`` changed the shape of a tensor.
        """
        tensors = self._tensors()
        changed = {name: function(tensor) for name, tensor in tensors.items()}
        if self.packed and any(tensor.shape != tensors[name].shape for name, tensor in changed.items()):
            raise ValueError(
                "A packed batch cannot be reshaped or repeated tensor by tensor, because its inputs have one row per "
                "instance and not one per bag: use select(rows), or padded() first."
            )
        return self.replace(**changed)

    def select(self, rows: Tensor) -> Batch:
        """The examples at ``rows``, int64 positions in the batch or a bool per example, padding kept."""
        if not self.packed:
            return self.apply(lambda tensor: tensor[rows])
        number = (self.valid.flatten().cumsum(dim=0) - 1).view_as(self.valid)
        instances = number[rows][self.valid[rows]]
        tensors = self._tensors()
        return self.replace(
            **{name: tensor[instances if name == "inputs" else rows] for name, tensor in tensors.items()}
        )

    def shortened(self, length: int) -> Batch:
        """The first ``length`` columns of a padded batch; what is cut off should be padding everywhere."""
        names = ("inputs", "valid", "special", "evidence", "segments")
        return self.replace(**{name: tensor[:, :length] for name, tensor in self._tensors().items() if name in names})

    @property
    def places(self) -> Tensor:
        """Where the instances stand in ``valid`` read row by row, shape ``(N,)``, int64; looked for once."""
        cached: tuple[Tensor, Tensor] | None = self.__dict__.get("_places")
        if cached is None or cached[0] is not self.valid:
            with torch.inference_mode(False):  # they may serve a backward pass later
                cached = self.valid, self.valid.flatten().nonzero().squeeze(-1)
            self.__dict__["_places"] = cached
        return cached[1]

    def unpack(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Values of the instances, shape ``(N, ...)``, at their places, shape ``(B, L, ...)``, and ``fill`` elsewhere.

        Values that a padded batch gave have their places already and are returned as they are.
        """
        if not self.packed:
            return values
        if len(values) == self.valid.numel():  # all bags have the same size
            return values.view(*self.valid.shape, *values.shape[1:])
        empty = values.new_full((self.valid.numel(), *values.shape[1:]), fill)
        return empty.index_copy_(0, self.places, values).view(*self.valid.shape, *values.shape[1:])

    def at_instances(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`unpack`: from values ``(B, L, ...)`` those of the instances, shape ``(N, ...)``.

        Of a padded batch the values are returned as they are.
        """
        if not self.packed:
            return values
        flat = values.flatten(0, 1)
        return flat if len(self.inputs) == len(flat) else flat.index_select(0, self.places)

    def padded(self) -> Batch:
        """The batch with inputs of shape ``(B, L, ...)``, 0 where no instance stands; itself if it is not packed."""
        if not self.packed:
            return self
        return self.replace(inputs=self.unpack(self.inputs), packed=False)

    def pack(self) -> Batch:
        """The batch with inputs of shape ``(N, ...)``, the instances alone; itself if it is packed already."""
        if self.packed:
            return self
        return self.replace(inputs=self.inputs[self.valid], packed=True)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        return self.apply(lambda tensor: tensor.to(device))

    def replace(self, **changes: Any) -> Batch:
        """A copy with some fields exchanged."""
        return dataclasses.replace(self, **changes)

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by field."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


@dataclass
class AttentionOutput:
    """What a network computed for a batch; nobody needs a hook to look inside.

    Attributes:
        logits: Shape ``(B, C)``.
        attention: Weights the head used: they sum to 1 over ``valid`` and are 0 elsewhere, shape ``(B, L)``.
        learned: Weights the scorer produced, before a mitigation replaced them, shape ``(B, L)``.
        scores: Before softmax; the lowest float of the dtype where nothing may be attended, shape ``(B, L)``.
        values: What the weights multiply, shape ``(B, L, H)``; ``(N, H)`` if the batch is packed.
        heads: Weights of each of M attention heads, shape ``(B, M, L)``, for networks that have several; their shares
            are in ``values`` then, and ``attention`` is their mean. None for networks of one.
        head_scores: Scores of each attention head, as ``scores``, shape ``(B, M, L)``; None for networks of one.
        keys: What the attention layer scores, as :meth:`AttentionNetwork.encode` gives it, shape ``(B, L, K)``; ``(N,
            K)`` if the batch is packed. Every network of this package fills it; None where somebody else's does not.
        embeddings: What :meth:`AttentionNetwork.embed` gave or the caller put in its place, shape ``(B, L, E)``; ``(N,
            E)`` if the batch is packed, and more dimensions where those of an instance have more. None as for ``keys``.
    """

    logits: Tensor
    attention: Tensor
    learned: Tensor
    scores: Tensor
    values: Tensor
    heads: Tensor | None = None
    head_scores: Tensor | None = None
    keys: Tensor | None = None
    embeddings: Tensor | None = None

    def detach(self) -> AttentionOutput:
        """The same numbers without gradients."""
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(
            self, **{name: tensor.detach() for name, tensor in tensors.items() if tensor is not None}
        )


@dataclass(frozen=True)
class DataSchema:
    """What a network must know of the data before its layers can be made. Plain values: every checkpoint stores it.

    Attributes:
        num_classes: C, at least 2 (or 1 and more for multi-label).
        class_names: One name per class, in the order of the logits.
        multi_label: True if an example may belong to several classes (sigmoid outputs), False for softmax outputs.
        vocabulary_size: Number of token ids, None where inputs are features.
        pad_id: Token id that fills padding.
        replacement_id: Token id that the ``mask`` perturbation writes: the tokenizer's [MASK], else ``<unk>``.
        feature_shape: Shape of one instance's features, None where inputs are token ids.
        query_vocabulary_size: Number of token ids of queries, None for single texts.
        default_tokens: Number of content-free tokens that end every text; theirs are the last ids of the vocabulary.
        grid: Rows and columns of the picture whose patches the instances are, see :meth:`cell`; None for instances
            without a place.
        spans: True if an example is answered by a span of its text; the classes are ``start`` and ``end`` then, and
            ``Batch.target`` holds the first and the last position, shape ``(B, 2)``, int64.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    vocabulary_size: int | None = None
    pad_id: int = 0
    replacement_id: int = 1
    feature_shape: tuple[int, ...] | None = None
    query_vocabulary_size: int | None = None
    default_tokens: int = 0
    grid: tuple[int, int] | None = None
    spans: bool = False

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities, same shape as ``logits`` ``(..., C)``: softmax, or sigmoid if ``multi_label``."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per class, in the order of the logits: their numbers where they have no names."""
        return self.class_names or tuple(str(number) for number in range(self.num_classes))

    def named_target(self, target: Tensor) -> str:
        """Name of the class, or names of the classes, of one example.

        Args:
            target: Its row of ``Batch.target``: a class, shape ``()``, or 0 and 1 a class, shape ``(C,)``.
        """
        return self._named(target > 0 if self.multi_label else torch.arange(self.num_classes) == target.cpu())

    def named_prediction(self, probabilities: Tensor) -> str:
        """Name of the class that is most probable, or of those with a probability of at least 1/2.

        Args:
            probabilities: Of one example, shape ``(C,)``.
        """
        if self.multi_label:
            return self._named(probabilities >= 0.5)
        return self._named(torch.arange(self.num_classes) == probabilities.argmax().cpu())

    def _named(self, members: Tensor) -> str:
        classes = members.nonzero().squeeze(-1).tolist()
        return ", ".join(self.names[number] for number in classes) or "none"

    def default_number(self, inputs: Tensor) -> Tensor:
        """Which default token each id is, from 0, and below 0 for every other id; shape of ``inputs``, token ids.

        Raises:
            InputError: The data are not token ids.
        """
        if self.vocabulary_size is None:
            raise InputError("Only texts have default tokens, but the data are features of instances.")
        return inputs - (self.vocabulary_size - self.default_tokens)

    def cell(self, inputs: Tensor) -> Tensor:
        """Where in the picture each patch stands: cells of the grid row by row from 1, and 0 for no place.

        The last two features of a patch are its row and its column, counted from 1, as shares of all rows and columns.
        So an instance of zeros, which is what a perturbation writes, stands nowhere.

        Args:
            inputs: Features of instances, shape ``(..., F)``.

        Returns:
            Shape ``(...)``, int64.

        Raises:
            InputError: The instances are no patches of a picture.
        """
        if self.grid is None:
            raise InputError("Only patches of a picture have a place in it; use DigitPairsDataModule.")
        rows, columns = self.grid
        row, column = (inputs[..., -2] * rows).round(), (inputs[..., -1] * columns).round()
        inside = (row >= 1) & (row <= rows) & (column >= 1) & (column <= columns)
        return torch.where(inside, (row - 1) * columns + column, 0).long()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; ``DataSchema(**schema.as_dict())`` restores it."""
        return dataclasses.asdict(self)


class WeightDistribution(Protocol):
    """Attention weights that are drawn without looking at the text; ``RandomAttention`` is the base class of ours."""

    def sample(self, attention: Tensor, batch: Batch) -> Tensor:
        """Weights, shape ``(B, L)``, in place of learned ones of the same shape."""


class MitigatedNetwork(Protocol):
    """All that a mitigation may ask of the network it acts on; every ``AttentionNetwork`` answers."""

    @property
    def schema(self) -> DataSchema:
        """Of the data that the network was built for."""

    @property
    def attention(self) -> nn.Module:
        """The layer that carries the mitigation, for messages: a mitigation does not reach into it."""

    @property
    def random_counterpart(self) -> WeightDistribution:
        """Random weights of the kind that the attention layer gives."""

    def attendable(self, batch: Batch) -> Batch:
        """The batch with ``special`` on every valid position that is never attended."""

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` from values ``(B, L, H)`` and weights ``(B, L)``."""

    def value_path(self) -> list[nn.Module]:
        """Modules that make the values and the logits."""

    def scorer_parameters(self) -> list[nn.Parameter]:
        """Parameters that make nothing but the weights."""
