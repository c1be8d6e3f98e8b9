"""What a network says about a text, and what it looked at: `Explainer`, `Explanation`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import track

from lightning_attn import attribution
from lightning_attn.attribution import LAFA
from lightning_attn.attribution.gradients import GradientAttribution
from lightning_attn.attribution.lafa import NeighbourText, neighbour_texts, text_digests
from lightning_attn.data.processor import TextProcessor
from lightning_attn.errors import DivergedError, InputError, shown
from lightning_attn.explain.readers import AnswerReader, ClassReader, Reader
from lightning_attn.hub.models import fits
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.ops.evaluation import not_finite

if TYPE_CHECKING:
    from typing_extensions import Self

    from lightning_attn.types import Batch


@dataclass
class Explanation:
    """One text, explained.

    Attributes:
        text: As the user wrote it.
        prediction: Name of the most probable class, or the most probable answer; what is explained. Of several labels
            those with a probability of at least 1/2, or ``none``; the most probable one is explained.
        probabilities: By class name, or by answer the most probable ones.
        tokens: What the network read, boundary tokens left out; of a long text the window that the answer stands in.
        attributions: By method, one number per token.
        query: Question or hypothesis that the text was read under; None for single texts.
        sides: Which text each token is of, 0 the text and 1 the query, where a network reads both as one; else None.
        neighbours: Training texts that lent their importance to the text, the nearest first; None if no method borrows.
    """

    text: str
    prediction: str
    probabilities: dict[str, float]
    tokens: list[str]
    attributions: dict[str, list[float]]
    query: str | None = None
    sides: list[int] | None = None
    neighbours: list[NeighbourText] | None = None

    @property
    def scores(self) -> dict[str, list[float]]:
        """Old name of ``attributions``."""
        warnings.warn("Explanation.scores is now Explanation.attributions.", DeprecationWarning, stacklevel=2)
        return self.attributions

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a line of JSON, where attributions keep their first name, ``scores``."""
        return {"scores" if name == "attributions" else name: value for name, value in asdict(self).items()}


#: What explains where nothing else is asked for: of classes, and of answers.
DEFAULT_METHODS = ("attention", "gradient", "occlusion")
DEFAULT_METHODS_OF_ANSWERS = ("rollout", "gradient", "integrated_gradients")


def default_methods(network: AttentionNetwork) -> tuple[str, ...]:
    """Names of methods that every network of the kind can be explained by."""
    return DEFAULT_METHODS_OF_ANSWERS if network.schema.spans else DEFAULT_METHODS


def method_for(network: AttentionNetwork, name: str) -> attribution.Attribution:
    """A method by name, so that it can explain the network: gradients through attention where it cannot be fixed.

    Raises:
        InputError: There is no such method, or it compares probabilities of classes and the network has none.
    """
    method = attribution.get(name)
    if network.schema.spans and isinstance(method, attribution.Occlusion):
        raise InputError(
            f"{name} removes tokens to compare probabilities of classes, and a network that answers by spans has none: "
            "take another method, such as rollout, transatt or integrated_gradients."
        )
    if network.schema.spans and isinstance(method, GradientAttribution):
        method.attention_fixed = False
    return method


def attribute(
    method: str | attribution.Attribution, network: AttentionNetwork, batch: Batch, target: torch.Tensor | None = None
) -> torch.Tensor:
    """How important each position of a batch was to a network, shape ``(B, L)``.

    Args:
        method: One by name, a key of :data:`lightning_attn.attribution.METHODS`, or the method itself.
        network: Built network.
        batch: B examples.
        target: Class that is explained, shape ``(B,)``; None means the one that the network predicts.

    Raises:
        InputError: There is no such method, or it cannot explain this network.
    """
    chosen = method_for(network, method) if isinstance(method, str) else method
    return chosen.attribute(network, batch, target)


class Explainer:
    """A network and the text processor that belongs to it, out of a checkpoint.

    Example:
        >>> explainer = Explainer("runs/20260101-120000-quickstart/checkpoints/best.ckpt")  # doctest: +SKIP
        >>> explainer.explain(["the film was great"])[0].prediction  # doctest: +SKIP
        'positive'

    Args:
        path: A checkpoint that ``lightning fit`` wrote.
        trust: Packages of the user's own that classes of the network may come from, see :meth:`TrainedNetwork.read`.

    Raises:
        InputError: The checkpoint cannot be used for this.
        DivergedError: Its weights are not finite.
    """

    def __init__(self, path: str | Path, trust: str | Iterable[str] = ()) -> None:
        trained = TrainedNetwork.read(path, trust)
        if "processor" not in trained.data:
            raise InputError(f"The checkpoint {path} holds no text processor: its data are not texts.")
        self._take(trained.network, TextProcessor.from_state(trained.data["processor"]))

    @classmethod
    def from_network(cls, network: AttentionNetwork, processor: TextProcessor) -> Self:
        """An explainer of a built network, such as ``TransformerNetwork.load(NAME)``.

        Args:
            network: Built network; it is moved to the GPU where there is one.
            processor: Fitted, and the one that the network's texts are split by.

        Raises:
            InputError: The processor is not fitted, or has other tokens than the network.
        """
        if not hasattr(processor, "vocabulary_size"):
            raise InputError(f"The {type(processor).__name__} has no tokens yet: call its fit() first.")
        rows = network.schema.vocabulary_size
        if rows is None or not fits(processor.vocabulary_size, rows):
            raise InputError(
                f"The {type(processor).__name__} has {processor.vocabulary_size:,} tokens, and the network "
                f"{'reads features' if rows is None else f'knows {rows:,}'}: give the processor of the network's texts."
            )
        explainer = cls.__new__(cls)
        explainer._take(network.eval(), processor)
        return explainer

    @classmethod
    def of(cls, network: AttentionNetwork, processor: TextProcessor) -> Self:
        """Old name of :meth:`from_network`."""
        warnings.warn("Explainer.of is now Explainer.from_network.", DeprecationWarning, stacklevel=2)
        return cls.from_network(network, processor)

    def _take(self, network: AttentionNetwork, processor: TextProcessor) -> None:
        if reason := not_finite(network):
            raise DivergedError(f"Nothing can be explained: {reason}. The training diverged; take another checkpoint.")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = processor
        self.network: AttentionNetwork = network.to(self.device)
        reader: type[Reader] = AnswerReader if network.schema.spans else ClassReader
        self._reader = reader(self.network, processor)

    def explain(
        self,
        texts: Sequence[str],
        methods: Sequence[str] | Mapping[str, attribution.Attribution] | None = None,
        batch_size: int = 32,
        progress: bool = False,
        queries: Sequence[str] | None = None,
    ) -> list[Explanation]:
        """Explain texts.

        Args:
            texts: None of them empty.
            methods: Names of attribution methods; or the methods themselves, by any name, for those that need more
                than a network, such as ``{"lafa": LAFA(index)}``; None takes those of :func:`default_methods`.
            batch_size: Texts read at once.
            progress: Whether to show a bar on the standard error stream.
            queries: Question or hypothesis of each text, for a network that reads pairs or answers questions; None for
                single texts.

        Returns:
            One explanation per text, in their order.

        Raises:
            InputError: A text or a query is empty or nothing that the tokenizer knows, a method is unknown or not for
                this network, queries are missing or out of place, or ``batch_size`` is below 1.
        """
        for name, value in (("texts", texts), ("methods", methods), ("queries", queries)):
            if isinstance(value, str):
                raise InputError(f"{name} is one string, {shown(value)}: a list of them is expected.")
        if batch_size < 1:
            raise InputError(f"batch_size, the texts read at once, must be at least 1, not {batch_size}.")
        if not texts:
            return []
        if isinstance(methods, Mapping):
            by_name = dict(methods)
        else:
            names = default_methods(self.network) if methods is None else methods
            by_name = {name: method_for(self.network, name) for name in names}
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"Text {number} of {len(texts)} is empty: there is nothing to explain in it.")
        if queries is not None:
            _check(queries, len(texts))
        self._reader.check(texts, queries)
        # Texts of one length stand together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        explanations: dict[int, Explanation] = {}
        for rows in track(batches, "Explaining", console=Console(stderr=True), disable=not progress, transient=True):
            asked = None if queries is None else [queries[row] for row in rows]
            explained = self._explain_batch([texts[row] for row in rows], asked, by_name)
            explanations.update(zip(rows, explained, strict=True))
        return [explanations[row] for row in range(len(texts))]

    def _explain_batch(
        self, texts: list[str], queries: list[str] | None, methods: Mapping[str, attribution.Attribution]
    ) -> list[Explanation]:
        reading = self._reader.read(texts, queries, self.device)
        # What is drawn for a text is to belong to the text, not to its place among the others.
        reading.batch = reading.batch.replace(index=text_digests(reading.batch))
        for text, some in zip(texts, reading.batch.inner.any(dim=1).tolist(), strict=True):
            if not some:
                raise InputError(f"The text {shown(text)} has no token for this network: nothing to explain.")
        attributions: dict[str, torch.Tensor] = {}
        lenders: list[list[NeighbourText]] | None = None
        for name, method in methods.items():
            if isinstance(method, LAFA):
                borrowed = method.borrow(self.network, reading.batch, reading.target)
                attributions[name] = borrowed.attributions
                assert borrowed.neighbours is not None
                names = self.network.schema.names
                lenders = neighbour_texts(method.index, borrowed.neighbours, self.processor.tokens, names)
            else:
                attributions[name] = method.attribute(self.network, reading.batch, reading.target)
        return [
            Explanation(
                text=text,
                prediction=reading.predictions[row],
                probabilities=reading.probabilities[row],
                tokens=reading.tokens[row],
                attributions={
                    name: values[row][reading.batch.inner[row]].tolist() for name, values in attributions.items()
                },
                query=None if queries is None else queries[row],
                sides=reading.sides[row],
                neighbours=None if lenders is None else lenders[row],
            )
            for row, text in enumerate(texts)
        ]


def _check(queries: Sequence[str], count: int) -> None:
    if len(queries) != count:
        raise InputError(f"There are {count} texts but {len(queries)} queries: give one query per text.")
    for number, query in enumerate(queries, 1):
        if not query.strip():
            raise InputError(f"Query {number} of {len(queries)} is empty: there is nothing to ask in it.")
