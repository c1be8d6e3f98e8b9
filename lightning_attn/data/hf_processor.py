"""Any fast tokenizer of Hugging Face: `HuggingFaceProcessor`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from typing_extensions import override

from lightning_attn.data.encoded import Array, Encoded, offsets_of
from lightning_attn.data.files import digest
from lightning_attn.data.processor import PairProcessor, Text, TextProcessor
from lightning_attn.errors import InputError
from lightning_attn.hub.configuration import stored_values
from lightning_attn.hub.models import fits


class HuggingFaceProcessor(TextProcessor):
    """Subword tokens of a pretrained model.

    A list of words is joined by spaces, so that a text gives the same tokens however it comes; each subword gets the
    evidence of the word it ends in. A checkpoint stores the whole tokenizer and needs neither folder nor network.

    Args:
        name_or_path: Name of a model on the Hugging Face Hub, or folder with its tokenizer files.
        max_length: Most tokens a text may have, special tokens included, at least 3; what is longer loses its end.
    """

    def __init__(self, name_or_path: str, max_length: int = 512) -> None:
        super().__init__(max_length)
        self.name_or_path = name_or_path
        self._json = ""
        self._special: dict[str, int | None] = {}

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, those of special tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def pad_id(self) -> int:
        """Token id of the padding token; 0 if the tokenizer has none: padding is never read."""
        return self._special["pad"] or 0

    @property
    def replacement_id(self) -> int:
        """Token id of the mask token, or of the unknown token, or of padding: the first that there is."""
        for name in ("mask", "unk"):
            if (token := self._special[name]) is not None:
                return token
        return self.pad_id

    @property
    @override
    def unknown_id(self) -> int | None:
        return self._special["unk"]

    def fit(self, texts: Iterable[Text]) -> None:
        """Load the tokenizer; it learns nothing from the texts.

        Raises:
            InputError: There is none, it is not a fast one, or its files want code run or are damaged.
        """
        from transformers import AutoTokenizer  # takes seconds to import; a restored processor does without

        with _refused(f"There is no tokenizer to be loaded from {self.name_or_path!r}"):
            stored_values(self.name_or_path)  # transformers makes lists as long as sizes in it say
            loaded = AutoTokenizer.from_pretrained(self.name_or_path, trust_remote_code=False)
        if not loaded.is_fast:
            raise InputError(f"The tokenizer {self.name_or_path!r} has no fast version, which aligns tokens and words.")
        special = {"pad": loaded.pad_token_id, "unk": loaded.unk_token_id, "mask": loaded.mask_token_id}
        self._set(loaded.backend_tokenizer.to_str(), special)

    def _set(self, json: str, special: dict[str, int | None]) -> None:
        with _refused(f"The tokenizer of {self.name_or_path!r} is damaged"):
            tokenizer = Tokenizer.from_str(json)
            tokenizer.no_padding()
            tokenizer.enable_truncation(self.max_length)
            probe_ids = [*tokenizer.encode("a").ids, *(number for number in special.values() if number is not None)]
            _check_ids(tokenizer, max(probe_ids, default=0))
        self._json = json
        self._special = special
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Token ids of N texts, flat, with the word that each token comes from."""
        strings = [_string(text) for text in texts]
        encodings = self._tokenizer.encode_batch(strings, add_special_tokens=True)
        special = [np.asarray(encoding.special_tokens_mask, dtype=bool) for encoding in encodings]
        words = [_words(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]
        return Encoded(
            ids=token_ids(self._tokenizer, encodings),
            offsets=offsets_of(len(mask) for mask in special),
            special=np.concatenate(special),
            words=np.where(np.concatenate(special), -1, np.concatenate(words)).astype(np.int32),
            truncated=sum(bool(encoding.overflowing) for encoding in encodings),
        )

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The subwords, as the tokenizer writes them in text where it can."""
        tokens = list(ids)
        texts = [self._tokenizer.decode([token], skip_special_tokens=False).strip() for token in tokens]
        return [text or str(self._tokenizer.id_to_token(token)) for text, token in zip(texts, tokens, strict=True)]

    def surface(self, text: Text) -> list[str]:
        """The pieces of one text as it was written, one per token of ``encode([text])``."""
        string = _string(text)
        encoding = self._tokenizer.encode(string, add_special_tokens=True)
        return _pieces((string,), encoding)

    @property
    def tokenizer(self) -> Tokenizer:
        """A copy of the tokenizer that neither pads nor cuts; its encodings know their characters."""
        copy = Tokenizer.from_str(self._json)
        copy.no_padding()
        copy.no_truncation()
        return copy

    def settings(self) -> dict[str, Any]:
        """The arguments; and the content of the tokenizer files, if they are in a folder."""
        folder = Path(self.name_or_path).expanduser()
        kinds = (".json", ".txt", ".model")  # of tokenizer files; the weights of the model do not matter
        files = [file for file in sorted(folder.iterdir()) if file.suffix in kinds] if folder.is_dir() else []
        return {
            "type": type(self).__name__,
            "name_or_path": self.name_or_path,
            "max_length": self.max_length,
            "files": [[file.name, digest(file)] for file in files],
        }

    def state(self) -> dict[str, Any]:
        """The arguments, the whole tokenizer as JSON, and the ids of its special tokens."""
        return {
            "type": type(self).__name__,
            "name_or_path": self.name_or_path,
            "max_length": self.max_length,
            "tokenizer": self._json,
            "special": self._special,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> HuggingFaceProcessor:
        """The fitted processor that :meth:`state` described."""
        processor = cls(state["name_or_path"], state["max_length"])
        processor._set(state["tokenizer"], dict(state["special"]))
        return processor


class HuggingFacePairProcessor(HuggingFaceProcessor, PairProcessor):
    """Premise and hypothesis, text and question, as the pair of a pretrained model: ``[CLS] text [SEP] query [SEP]``.

    What is added, and the token types, is the affair of the model's own tokenizer. A pair that is too long loses the
    end of its longer text until both are equally long, and is counted. Evidence is of the text; that of the query is
    unknown.

    Args:
        name_or_path: Name of a model on the Hugging Face Hub, or folder with its tokenizer files.
        max_length: Most tokens a pair may have, special tokens included.
    """

    def fit(self, texts: Iterable[Text]) -> None:
        """Load the tokenizer.

        Raises:
            InputError: There is none, it is not a fast one, it joins no pairs, or ``max_length`` leaves no room.
        """
        super().fit(texts)
        (encoding,) = self._tokenizer.encode_batch([("a", "b")])
        if not any(encoding.special_tokens_mask[1:-1]):
            raise InputError(
                f"The tokenizer {self.name_or_path!r} puts nothing between the texts of a pair: take that of a model "
                "that was pretrained on pairs, such as BERT or RoBERTa."
            )
        least = sum(encoding.special_tokens_mask) + 2
        if self.max_length < least:
            raise InputError(f"A pair has at least {least} tokens: set max_length above {self.max_length}.")

    @override
    def encode_pairs(self, texts: Sequence[Text], queries: Sequence[Text]) -> Encoded:
        pairs = [(_string(text), _string(query)) for text, query in zip(texts, queries, strict=True)]
        encodings = self._tokenizer.encode_batch(pairs, add_special_tokens=True)
        sides = np.concatenate([_sides(encoding) for encoding in encodings])
        words = np.concatenate([_words(text, encoding) for text, encoding in zip(texts, encodings, strict=True)])
        return Encoded(
            ids=token_ids(self._tokenizer, encodings),
            offsets=offsets_of(len(encoding.ids) for encoding in encodings),
            special=np.concatenate([np.asarray(encoding.special_tokens_mask, dtype=bool) for encoding in encodings]),
            words=np.where(sides == 0, words, -1).astype(np.int32),
            truncated=sum(bool(encoding.overflowing) for encoding in encodings),
            segments=np.concatenate([np.asarray(encoding.type_ids, dtype=np.int8) for encoding in encodings]),
            sides=sides,
        )

    @override
    def surface_pair(self, text: Text, query: Text) -> list[str]:
        pair = (_string(text), _string(query))
        encoding = self._tokenizer.encode(*pair, add_special_tokens=True)
        return _pieces(pair, encoding)


def token_ids(tokenizer: Tokenizer, encodings: Sequence[Encoding]) -> Array:
    """Token ids of all encodings, flat, int32.

    Raises:
        InputError: One is far beyond the number of tokens that the tokenizer has.
    """
    ids = np.concatenate([np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings])
    _check_ids(tokenizer, int(ids.max(initial=0)))
    return ids.astype(np.int32)


def _check_ids(tokenizer: Tokenizer, highest: int) -> None:
    size = tokenizer.get_vocab_size()
    if highest >= size and not fits(size, highest + 1):
        raise InputError(f"The tokenizer is damaged: of its {size:,} tokens one has the id {highest:,}.")


@contextmanager
def _refused(sentence: str) -> Iterator[None]:
    """One sentence for whatever tokenizers and transformers raise of bad files; a panic in Rust is no Exception."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise InputError(f"{sentence} ({reason:.300}).") from error


def _string(text: Text) -> str:
    return text if isinstance(text, str) else " ".join(text)


def _pieces(texts: Sequence[str], encoding: Encoding) -> list[str]:
    """What each token is of its text as it was written; special tokens are themselves.

    A tokenizer of bytes makes several tokens of one character, and some of white space: the character is shown once,
    and what has nothing of its own to show as a dot.
    """
    pieces: list[str] = []
    before = None
    for side, place, token in zip(_sides(encoding).tolist(), encoding.offsets, encoding.tokens, strict=True):
        if side < 0:
            pieces.append(token)
        else:
            pieces.append("" if (side, place) == before else texts[side][slice(*place)].strip())
        before = (side, place)
    return [piece or "\N{MIDDLE DOT}" for piece in pieces]


def _sides(encoding: Encoding) -> Array:
    """Which text of the pair each token is of; -1 on special tokens."""
    return np.array([-1 if side is None else side for side in encoding.sequence_ids], dtype=np.int8)


def _words(text: Text, encoding: Encoding) -> Array:
    """The word of each token: the one that holds its last character, because some tokens begin with the space."""
    if isinstance(text, str):
        return np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64)
    starts = offsets_of(len(word) + 1 for word in text)[:-1]
    last = np.array([last for _, last in encoding.offsets], dtype=np.int64) - 1
    return np.searchsorted(starts - 1, last, side="right") - 1  # the space before a word counts to it
