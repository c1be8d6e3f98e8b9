"""The contract that explainers, perturbations and metrics rely on: `AttentionNetwork`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.attention.base import AttentionLayer
from lightning_attn.errors import InputError, adopt_renamed
from lightning_attn.mitigations.base import Mitigation, MitigationCarrier
from lightning_attn.mitigations.random_attention import RandomAttention
from lightning_attn.types import AttentionOutput, Batch, DataSchema

Network = TypeVar("Network", bound="AttentionNetwork")


class AttentionNetwork(MitigationCarrier):
    """A classifier ``p(y|x) = head(attention * values)`` whose parts can be looked at and replaced.

    A subclass sets ``self.attention`` in ``__init__``, makes the layers whose sizes depend on the data in
    :meth:`make_layers`, and writes :meth:`embed`, :meth:`encode` and :meth:`classify`. What holds for every network,
    and is tested for each: an example gives the same output alone and in a padded batch; ``attention`` is a
    distribution over ``valid``; ``forward(batch, attention=output.attention)`` and
    ``forward(batch, embeddings=embed(batch))`` reproduce the logits; evaluation is deterministic.

    One kind of network is exempt from the replacement: where ``replaceable`` is False, the attention is there to be
    looked at, nothing is computed from a text's weights alone, and :meth:`classify`, :meth:`classify_many` and
    ``forward(attention=...)`` raise :class:`InputError`. All else holds for it too.
    """

    attention: AttentionLayer
    #: Whether other weights can be put in the place of the network's own.
    replaceable: bool = True
    #: Whether the head sees nothing of the input but the weights, so that what it knows has travelled in them.
    content_free: bool = False
    #: Why the network is not trained, one sentence; empty if it is.
    untrainable: str = ""
    _schema: DataSchema | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_renamed(cls, attended="attendable")

    @property
    def schema(self) -> DataSchema:
        """What the data told the network in :meth:`build`.

        Raises:
            InputError: The network was not built yet.
        """
        if self._schema is None:
            raise InputError(
                f"{type(self).__name__} has no layers yet: call build(schema), or give the Trainer a datamodule."
            )
        return self._schema

    @property
    def built(self) -> bool:
        """Whether :meth:`build` was called."""
        return self._schema is not None

    def build(self: Network, schema: DataSchema) -> Network:
        """Make the layers for this data. Done once, by the LightningModule, before training or loading weights.

        Args:
            schema: Number of classes, vocabulary size and the like.

        Returns:
            The network itself.
        """
        if self._schema is None:
            self._schema = schema
            self.make_layers(schema)
            self.attention.build_mitigation(schema)
        return self

    @property
    def reads_query(self) -> bool:
        """Whether the network reads a query beside the text."""
        return type(self).read_query is not AttentionNetwork.read_query

    @override
    def _carried_mitigation(self) -> Mitigation:
        return self.attention.mitigation

    @override
    def set_mitigation(self, mitigation: Mitigation) -> None:
        self.attention.set_mitigation(mitigation)

    @property
    def random_counterpart(self) -> RandomAttention:
        """Random weights of the kind that the attention layer gives, drawn without looking at the text."""
        return self.attention.random_counterpart

    def inference_state(self) -> dict[str, Any]:
        """What predictions depend on: :meth:`state_dict` without what mitigations keep, which matters in training."""
        return {name: value for name, value in self.state_dict().items() if not _of_mitigation(name)}

    def load_inference_state(self, state: Mapping[str, Any]) -> None:
        """Load :meth:`inference_state`; what mitigations had in ``state`` is passed over, theirs here stays.

        Raises:
            RuntimeError: Names or shapes differ.
        """
        own = {name: value for name, value in state.items() if not _of_mitigation(name)}
        missing, unexpected = self.load_state_dict(own, strict=False)
        missing = [name for name in missing if not _of_mitigation(name)]
        for problem, names in (("Missing", missing), ("Unexpected", unexpected)):
            if names:
                raise RuntimeError(f"{problem} key(s) in the weights of {type(self).__name__}: {', '.join(names)}.")

    def named_inference_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by name, without those of mitigations, which learn beside the network."""
        return ((name, value) for name, value in self.named_parameters() if not _of_mitigation(name))

    def scorer_parameters(self) -> list[nn.Parameter]:
        """Parameters that make nothing but the weights: neither on the :meth:`value_path` nor the mitigation's."""
        on_path = {id(parameter) for module in self.value_path() for parameter in module.parameters()}
        return [value for _, value in self.named_inference_parameters() if id(value) not in on_path]

    @abstractmethod
    def make_layers(self, schema: DataSchema) -> None:
        """Create every layer whose size depends on the data."""

    @abstractmethod
    def embed(self, batch: Batch) -> Tensor:
        """Embeddings of the inputs, shape ``(B, L, E)``: the point where gradients and ablations act."""

    @abstractmethod
    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys, shape ``(B, L, K)``, and values, shape ``(B, L, H)``, from embeddings ``(B, L, E)``."""

    def read_query(self, batch: Batch) -> Batch:
        """The batch with ``query_vector``; the batch itself where a network reads no query or has read it already.

        Whoever changes a text many times calls this first: rows that are selected or repeated take the vector along.
        """
        return batch

    def attendable(self, batch: Batch) -> Batch:
        """The batch as mitigations and probes of the mask are to see it: what may be attended is its ``inner`` part.

        ``special`` is True on every other valid position. Doing it twice does nothing more.
        """
        return self.attention.attendable(batch)

    @abstractmethod
    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """Logits ``(B, C)`` from values ``(B, L, H)`` and weights ``(B, L)``: the cheap path, no encoder pass.

        Raises:
            InputError: The attention is not :attr:`replaceable`.
        """

    def classify_many(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        """:meth:`classify` of each example under V attentions of its own.

        This one repeats values and batch V times; a network that can do without overrides it.

        Args:
            values: Shape ``(B, L, H)``.
            attention: Shape ``(B, V, L)``.
            batch: B padded examples.

        Returns:
            Logits, shape ``(B, V, C)``.
        """
        count = attention.shape[1]
        many = self.read_query(batch).apply(lambda tensor: tensor.repeat_interleave(count, dim=0))
        logits = self.classify(values.repeat_interleave(count, dim=0), attention.flatten(0, 1), many)
        return logits.view(*attention.shape[:2], logits.shape[-1])

    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, attention: Tensor | None = None
    ) -> AttentionOutput:
        """Classify a batch.

        Args:
            batch: B texts or bags of up to L positions.
            embeddings: Used in place of :meth:`embed`, shape ``(B, L, E)``.
            attention: Used in place of the scorer's weights, shape ``(B, L)``; no mitigation touches it.

        Returns:
            Logits, weights, scores, values, keys and embeddings.

        Raises:
            InputError: ``attention`` is not None, but not :attr:`replaceable`.
        """
        batch = self.read_query(batch)
        embeddings = self.embed(batch) if embeddings is None else embeddings
        keys, values = self.encode(embeddings, batch)
        scores, learned, observed = self.attention(keys, batch)
        used = observed if attention is None else attention
        logits = self.classify(values, used, batch)
        return AttentionOutput(logits, used, learned, scores, values, keys=keys, embeddings=embeddings)

    def value_path(self) -> list[nn.Module]:
        """Modules that make the values and the logits: what random pretraining trains first and then freezes.

        The default is everything but the attention layer; right whenever keys and values share the encoder. A network
        with a key path of its own returns less: the value path must be separable from the scorer.
        """
        return [module for module in self.children() if module is not self.attention]

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Copy pretrained word vectors, shape ``(V, E)``, into the embedding; rows of NaN keep their random start.

        Raises:
            InputError: The network has no word embedding.
        """
        raise InputError(f"{type(self).__name__} has no word embedding, so word vectors cannot be loaded into it.")


def _of_mitigation(name: str) -> bool:
    """Whether a name in a state dict is that of something a mitigation keeps, in whichever attention layer."""
    return "mitigation" in name.split(".")
