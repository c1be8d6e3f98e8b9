"""Content-free tokens at the end of every text: `DefaultTokens`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from lightning_attn.data.encoded import Encoded, offsets_of
from lightning_attn.data.processor import Text, TextProcessor
from lightning_attn.data.word_processor import WordProcessor
from lightning_attn.errors import InputError


class DefaultTokens(TextProcessor):
    """Another processor's tokens and, after them, ``<default 1>`` ... ``<default k>``, the same in every text.

    They are special: never perturbed, never scored. They say nothing, so attention on them is either wasted or carries
    a message in its weights. ``attend_special: true`` lets an attention choose between them and the words;
    a ``ContentFreeNetwork`` lets it attend to nothing else.

    Source: the default tokens of Bai et al., KDD 2021, https://arxiv.org/abs/2006.05656; reconstructed.

    Args:
        k: Number of default tokens, at least 1.
        processor: Makes the tokens of the text; None means ``WordProcessor()``.

    Raises:
        InputError: ``k`` is below 1.
    """

    def __init__(self, k: int = 4, processor: TextProcessor | None = None) -> None:
        if k < 1:
            raise InputError(f"DefaultTokens needs a k of at least 1, not {k}; leave the class out for texts without.")
        self.processor = processor or WordProcessor()
        super().__init__(self.processor.max_length + k)
        self.k = k

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; the last ``k`` are those of the default tokens."""
        return self.processor.vocabulary_size + self.k

    @property
    def default_tokens(self) -> int:
        """``k``."""
        return self.k

    @property
    def pad_id(self) -> int:
        """That of the other processor."""
        return self.processor.pad_id

    @property
    def replacement_id(self) -> int:
        """That of the other processor."""
        return self.processor.replacement_id

    @property
    @override
    def unknown_id(self) -> int | None:
        return self.processor.unknown_id

    def fit(self, texts: Iterable[Text]) -> None:
        """Fit the other processor."""
        self.processor.fit(texts)

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token ids of N texts, flat, with the word that each token comes from; default tokens come from none."""
        encoded = self.processor.encode(texts)
        ends = np.repeat(encoded.offsets[1:], self.k)  # np.insert counts places in the array as it was
        first = self.processor.vocabulary_size
        defaults = np.tile(np.arange(first, first + self.k, dtype=encoded.ids.dtype), len(encoded))
        return Encoded(
            ids=np.insert(encoded.ids, ends, defaults),
            offsets=offsets_of(np.diff(encoded.offsets) + self.k),
            special=np.insert(encoded.special, ends, True),
            words=np.insert(encoded.words, ends, -1),
            truncated=encoded.truncated,
        )

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """How the token ids are shown to a person."""
        first = self.processor.vocabulary_size
        return [
            f"<default {number - first + 1}>" if number >= first else self.processor.tokens([number])[0]
            for number in ids
        ]

    def surface(self, text: Text) -> list[str]:
        """The pieces of one text as it was written, and the default tokens."""
        first = self.processor.vocabulary_size
        return [*self.processor.surface(text), *self.tokens(range(first, first + self.k))]

    def settings(self) -> dict[str, Any]:
        """``k`` and the settings of the other processor."""
        return {"type": type(self).__name__, "k": self.k, "processor": self.processor.settings()}

    def state(self) -> dict[str, Any]:
        """``k`` and the state of the other processor."""
        return {**self.settings(), "processor": self.processor.state()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> DefaultTokens:
        """The fitted processor that :meth:`state` described."""
        return cls(state["k"], TextProcessor.from_state(state["processor"]))
