"""From text to token ids and back: the base class `TextProcessor`."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from lightning_attn.data.encoded import Encoded, EncodedDataset
from lightning_attn.errors import InputError, shown
from lightning_attn.types import Batch

Text = str | list[str]  # a raw string, or words that somebody split already


class TextProcessor(ABC):
    """Turns texts into token ids. A text is a string, or a list of words where the data were split by somebody.

    Args:
        max_length: Most tokens a text may have, boundary tokens included, at least 3; what is longer loses its end.
    """

    def __init__(self, max_length: int = 512) -> None:
        if max_length < 3:
            raise InputError(f"{type(self).__name__} needs a max_length of at least 3, not {max_length}.")
        self.max_length = max_length

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Number of token ids."""

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """Token id that fills padding."""

    @property
    @abstractmethod
    def replacement_id(self) -> int:
        """Token id that stands for a removed token: [MASK] if the tokenizer has one, else the unknown token."""

    @property
    def unknown_id(self) -> int | None:
        """Token id that all words get that the vocabulary lacks; None if there is none such."""
        return None

    @property
    def default_tokens(self) -> int:
        """Number of content-free tokens that end every text; theirs are the last ids of the vocabulary."""
        return 0

    @abstractmethod
    def fit(self, texts: Iterable[Text]) -> None:
        """Learn what is to be learnt, such as a vocabulary, from the training texts."""

    @abstractmethod
    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token ids of N texts, flat, with the word that each token comes from."""

    @abstractmethod
    def tokens(self, ids: Iterable[int]) -> list[str]:
        """How the token ids are shown to a person."""

    @abstractmethod
    def surface(self, text: Text) -> list[str]:
        """The pieces of a text as it was written, one per token of ``encode([text])``: unknown words stay readable."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the result of :meth:`fit` and :meth:`encode`; the cache is keyed by them."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_state` makes the fitted processor again, in a checkpoint."""

    @classmethod
    @abstractmethod
    def restored(cls, state: dict[str, Any]) -> TextProcessor:
        """The fitted processor that :meth:`state` described; use :meth:`from_state`, which finds the class."""

    @staticmethod
    def from_state(state: dict[str, Any]) -> TextProcessor:
        """The fitted processor that :meth:`state` described.

        Raises:
            InputError: The state names a processor class that is not imported.
        """
        classes = {kind.__name__: kind for kind in _subclasses()}
        if not isinstance(state, dict):
            raise InputError(f"The checkpoint's text processor is damaged: it is {shown(str(state))}.")
        if state.get("type") not in classes:
            raise InputError(
                f"The checkpoint's text processor is a {state.get('type')!r}, but only {', '.join(sorted(classes))} "
                "are known; import the module that defines it first."
            )
        try:
            return classes[str(state["type"])].restored(state)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"The checkpoint's text processor is damaged ({shown(str(error))}).") from error

    def unfitted(self) -> TextProcessor:
        """A copy to be fitted, so that the one that was given stays as it is."""
        return copy.deepcopy(self)

    def batch(self, texts: Sequence[Text], queries: Sequence[Text] | None = None) -> Batch:
        """Raw texts, with or without queries, as one batch to explain; targets are 0 because they are not known.

        Raises:
            InputError: A text is empty.
        """
        for row, text in enumerate(texts):
            if not (text.strip() if isinstance(text, str) else text):
                raise InputError(f"Text {row + 1} of {len(texts)} is empty: there is nothing to explain in it.")
        if isinstance(self, PairProcessor) and queries is not None:
            encoded, asked = self.encode_pairs(texts, queries), None
        else:
            encoded = self.encode(texts)
            asked = None if queries is None else self.encode(queries)
        dataset = EncodedDataset(
            encoded.ids,
            encoded.offsets,
            encoded.special,
            labels=np.zeros(len(texts), dtype=np.int64),
            pad_id=self.pad_id,
            query_ids=None if asked is None else asked.ids,
            query_offsets=None if asked is None else asked.offsets,
            segments=encoded.segments,
        )
        return dataset[range(len(texts))].apply(torch.Tensor.contiguous)


class PairProcessor(TextProcessor):
    """Joins a text and its query to one text, as the tokenizer of a pretrained model does; both are perturbed.

    Networks see one text then, whose ``Batch.segments`` are its token types, and no query.
    """

    @abstractmethod
    def encode_pairs(self, texts: Sequence[Text], queries: Sequence[Text]) -> Encoded:
        """Token ids of N pairs, flat, with ``segments`` and ``sides``; ``words`` are those of the texts alone."""

    @abstractmethod
    def surface_pair(self, text: Text, query: Text) -> list[str]:
        """The pieces of one pair as it was written, one per token of ``encode_pairs([text], [query])``."""


def _subclasses() -> list[type[TextProcessor]]:
    classes = list(TextProcessor.__subclasses__())
    for kind in classes:  # grows while it is walked, so grandchildren come too
        classes += kind.__subclasses__()
    return classes
