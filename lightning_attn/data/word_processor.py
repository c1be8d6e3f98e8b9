"""One token per word, with a vocabulary of our own: `WordProcessor`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from typing_extensions import override

from lightning_attn.data.encoded import Encoded, offsets_of
from lightning_attn.data.processor import Text, TextProcessor
from lightning_attn.errors import InputError

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
SPECIAL = [PAD, UNKNOWN, START, END]
# As the Penn treebank splits: "didn't" is "did" "n't", "it's" is "it" "'s"; words with hyphens and numbers stay whole.
_WORD = r"\w+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\d+(?:[.,]\d+)+|\w+(?:-\w+)*|\.{2,}|-{2,}|[^\w\s]"
# Scripts that put no space between words: each character with its marks is a token, but a run of katakana, which
# writes foreign words, stays whole, as in the word boundaries of Unicode (UAX 29).
_NO_SPACES = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[\w&&[^{_NO_SPACES}\p{{Katakana}}]]"
_CHARACTER = rf"[\p{{Katakana}}\x{{30fc}}]+|[{_NO_SPACES}]\p{{M}}*"
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class WordProcessor(TextProcessor):
    """Word-level tokens with a vocabulary built from the training texts, by the `tokenizers` library.

    A raw string is split into words and punctuation, near the way of the Penn treebank; line breaks of HTML count as
    white space. A list of words is kept word for word, so that evidence lines up. The most frequent words get the
    lowest ids after ``<pad>`` 0, ``<unk>`` 1, ``<s>`` 2 and ``</s>`` 3.

    Args:
        lowercase: Whether ``The`` and ``the`` are one word.
        min_frequency: A word must occur so often in the training texts to be in the vocabulary, at least 1.
        max_size: Most entries of the vocabulary, the 4 special ones included; None for no limit.
        max_length: Most tokens a text may have, boundary tokens included, at least 3; what is longer loses its end.
        boundaries: Whether ``<s>`` and ``</s>`` stand around each text, as special tokens.
        split_scripts: Whether a raw string that is mostly in a script without spaces between words (Chinese, Japanese,
            Thai, Lao, Khmer, Burmese) is split into its characters; a run of katakana stays one word.
    """

    def __init__(
        self,
        lowercase: bool = True,
        min_frequency: int = 1,
        max_size: int | None = None,
        max_length: int = 512,
        boundaries: bool = True,
        split_scripts: bool = True,
    ) -> None:
        super().__init__(max_length)
        if max_size is not None and max_size <= len(SPECIAL):
            raise InputError(
                f"WordProcessor needs a max_size above {len(SPECIAL)}, its special tokens, not {max_size}."
            )
        self.lowercase = lowercase
        self.min_frequency = min_frequency
        self.max_size = max_size
        self.boundaries = boundaries
        self.split_scripts = split_scripts
        self.vocabulary: list[str] = []

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, the 4 special ones included."""
        return len(self.vocabulary)

    @property
    def pad_id(self) -> int:
        """Token id of ``<pad>``."""
        return SPECIAL.index(PAD)

    @property
    def replacement_id(self) -> int:
        """Token id of ``<unk>``."""
        return SPECIAL.index(UNKNOWN)

    @property
    @override
    def unknown_id(self) -> int:
        return SPECIAL.index(UNKNOWN)

    def fit(self, texts: Iterable[Text]) -> None:
        """Build the vocabulary: most frequent first, equal ones by alphabet."""
        trainer = trainers.WordLevelTrainer(
            vocab_size=2**31 if self.max_size is None else self.max_size,
            min_frequency=self.min_frequency,
            special_tokens=SPECIAL,
            show_progress=False,
        )
        # words that were split already must not be split again, hence a tokenizer without a splitter for them
        texts = map(self._spaced, texts)
        first = next(texts)
        tokenizer = self._tokenizer([], split=isinstance(first, str))
        tokenizer.train_from_iterator(_chain(first, texts), trainer)
        found = tokenizer.get_vocab()
        self._set(sorted(found, key=found.__getitem__))

    def _set(self, vocabulary: list[str]) -> None:
        self.vocabulary = vocabulary
        self._strings = self._tokenizer(vocabulary, split=True)
        self._words = self._tokenizer(vocabulary, split=False)

    def _tokenizer(self, vocabulary: list[str], split: bool) -> Tokenizer:
        ids = {word: position for position, word in enumerate(vocabulary)}
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        steps: list[normalizers.Normalizer] = [normalizers.Lowercase()] if self.lowercase else []
        if split:
            steps = [normalizers.Replace(Regex(r"<br\s*/?>"), " "), normalizers.Replace("\u2019", "'"), *steps]
            tokenizer.pre_tokenizer = _splitter(_WORD)
        tokenizer.normalizer = normalizers.Sequence(steps)
        return tokenizer

    def _spaced(self, text: Text) -> Text:
        """A string whose script has no spaces between words with a space around each token; other texts as they are."""
        if not self.split_scripts or not isinstance(text, str) or not _is_unspaced(text):
            return text
        return " ".join(piece for piece, _ in _splitter(_CHARACTER, "isolated").pre_tokenize_str(text))

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token ids of N texts, flat, with the word that each token comes from."""
        room = self.max_length - 2 * self.boundaries
        rows = [np.asarray(ids, dtype=np.int32) for ids in self._ids(texts)]
        kept = [ids[:room] for ids in rows]
        if self.boundaries:
            start, end = (np.array([SPECIAL.index(token)], dtype=np.int32) for token in (START, END))
            kept = [np.concatenate([start, ids, end]) for ids in kept]
        offsets = offsets_of(len(ids) for ids in kept)
        ids = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int32)
        words = np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets)) - self.boundaries
        for row, text in enumerate(texts):  # an empty string in a list of words makes no token
            if not isinstance(text, str) and "" in text:
                places = [place for place, word in enumerate(text) if word][: min(room, len(rows[row]))]
                words[offsets[row] + self.boundaries :][: len(places)] = places
        special = np.zeros(len(ids), dtype=bool)
        if self.boundaries:
            special[offsets[:-1]] = special[offsets[1:] - 1] = True
        return Encoded(
            ids=ids,
            offsets=offsets,
            special=special,
            words=np.where(special, -1, words).astype(np.int32),
            truncated=sum(len(row) > room for row in rows),
        )

    def _ids(self, texts: Sequence[Text]) -> list[list[int]]:
        split = not texts or isinstance(texts[0], str)
        tokenizer = self._strings if split else self._words
        encodings = tokenizer.encode_batch_fast(
            [self._spaced(text) for text in texts], is_pretokenized=not split, add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The words of the vocabulary; a word that is not in it shows as ``<unk>``."""
        return [self.vocabulary[position] for position in ids]

    def surface(self, text: Text) -> list[str]:
        """The words of one text as it was written, one per token of ``encode([text])``."""
        text = self._spaced(text)
        if isinstance(text, str):
            # spans of the original, because the splitter itself sees the text in lower case
            encoding = self._strings.encode(text, add_special_tokens=False)
            words = [text[first:last] for first, last in encoding.offsets]
        else:
            words = [word for word in text if word]
        words = words[: self.max_length - 2 * self.boundaries]
        return [START, *words, END] if self.boundaries else words

    def settings(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "type": type(self).__name__,
            "lowercase": self.lowercase,
            "min_frequency": self.min_frequency,
            "max_size": self.max_size,
            "max_length": self.max_length,
            "boundaries": self.boundaries,
            "split_scripts": self.split_scripts,
        }

    def state(self) -> dict[str, Any]:
        """The arguments and the vocabulary, a list of words in the order of their ids."""
        return {**self.settings(), "vocabulary": self.vocabulary}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> WordProcessor:
        """The fitted processor that :meth:`state` described."""
        arguments = {name: value for name, value in state.items() if name not in ("type", "vocabulary")}
        processor = cls(**{"split_scripts": False, **arguments})  # states of 0.1.0 do not say, and did not split
        processor._set(list(state["vocabulary"]))
        return processor


def word_spans(text: str) -> list[tuple[int, int]]:
    """First character, and one after the last, of the words and punctuation of a string, as in `WordProcessor`."""
    own = _WORD.replace(r"\w+", f"{_LETTER}+")
    pattern = f"{_CHARACTER}|{own}" if _is_unspaced(text) else _WORD
    return [span for _, span in _splitter(pattern).pre_tokenize_str(text)]


def _is_unspaced(text: str) -> bool:
    """Whether more than half of the letters are of scripts that put no space between words."""
    return not text.isascii() and 2 * len(_UNSPACED.findall(text)) > sum(map(str.isalnum, text))


@functools.cache
def _splitter(pattern: str, behavior: str = "removed") -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(f"(?i){pattern}"), behavior, invert=behavior == "removed")


def _chain(first: Text, rest: Iterable[Text]) -> Iterable[Text]:
    yield first
    yield from rest
