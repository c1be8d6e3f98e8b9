"""Questions tokenised with overlapping windows of their texts: `QuestionProcessor`, `WindowDataset`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding
from typing_extensions import override

from lightning_attn.data.encoded import Array, EncodedDataset, offsets_of
from lightning_attn.data.hf_processor import HuggingFaceProcessor, token_ids
from lightning_attn.data.processor import Text
from lightning_attn.data.questions import Question
from lightning_attn.errors import InputError
from lightning_attn.types import DataSchema

CHUNK = 1000  # questions tokenised at a time
#: Of windows: token ids, where windows begin and end, special tokens, token types, characters of tokens, first and last
#: token of the answer, number of the question.
ARRAYS = ("ids", "offsets", "special", "segments", "spans", "target", "owner")


class WindowDataset(EncodedDataset):
    """Windows ``[CLS] question [SEP] part of the context [SEP]``; the target is first and last token of the answer.

    ``evidence`` is 1 on the tokens of the answer, 0 on the rest of the context and NaN elsewhere.

    Args:
        arrays: As :meth:`QuestionProcessor.window_arrays` makes them.
        questions: What the windows are of.
        pad_id: Token id that fills padding.

    Attributes:
        questions: What the windows are of.
        owner: Number of the question of each window, shape ``(W,)``, int64.
        chosen: Of the windows of each question the one that has most around the answer, or the first if none has it;
            True there, shape ``(W,)``, bool. (The rule of "maximum context" of the released code of BERT.)
        spans: Place of each token in its context, first character and one after the last, shape ``(T, 2)``; -1
            elsewhere.
    """

    def __init__(self, arrays: dict[str, Array], questions: list[Question], pad_id: int) -> None:
        spans, target, owner = arrays["spans"], arrays["target"], arrays["owner"]
        evidence, self.chosen = _evidence(arrays["offsets"], spans, target, owner)
        flat = {name: arrays[name] for name in ("ids", "offsets", "special", "segments")}
        super().__init__(**flat, labels=target, pad_id=pad_id, evidence=evidence)
        self.questions = questions
        self.owner = owner
        self.spans = spans

    @property
    def several(self) -> int:
        """Number of questions whose context needed more than one window."""
        return int((np.bincount(self.owner) > 1).sum())

    def characters(self, rows: Array, tokens: Array) -> Array:
        """First character, and one after the last, of spans of tokens in their contexts; shape ``(B, 2)``, int64.

        Args:
            rows: Windows, shape ``(B,)``.
            tokens: First and last position, shape ``(B, 2)``.
        """
        places = self.offsets[rows][:, None] + tokens
        return np.stack([self.spans[places[:, 0], 0], self.spans[places[:, 1], 1]], axis=1)


class QuestionProcessor(HuggingFaceProcessor):
    """Question and context as the pair of a pretrained model; a context that is too long is read in windows.

    Args:
        name_or_path: Name of a model on the Hugging Face Hub, or folder with its tokenizer files.
        max_length: Most tokens of a window, question and special tokens included; 384 is usual.
        stride: Tokens of the context that neighbouring windows share; 128 is usual.

    Raises:
        InputError: ``stride`` is negative.
    """

    def __init__(self, name_or_path: str, max_length: int = 384, stride: int = 128) -> None:
        super().__init__(name_or_path, max_length)
        if stride < 0:
            raise InputError(f"QuestionProcessor needs a stride of 0 or more, not {stride}.")
        self.stride = stride

    def fit(self, texts: Iterable[Text]) -> None:
        """Load the tokenizer.

        Raises:
            InputError: There is none, it is not a fast one, joins no pairs or does not say where its tokens stand.
        """
        super().fit(texts)
        (probe,) = self._tokenizer.encode_batch([("who sings", "two girls sing")])
        if probe.sequence_ids.count(0) == 0 or not any(probe.special_tokens_mask[1:-1]):
            raise InputError(
                f"The tokenizer {self.name_or_path!r} puts nothing between question and text: take that of a model "
                "that was pretrained on pairs, such as BERT or RoBERTa."
            )
        if not any(end > first for first, end in probe.offsets):
            raise InputError(
                f"The tokenizer {self.name_or_path!r} gives no offsets, so that no answer can be found in the text."
            )

    def schema(self) -> DataSchema:
        """What a network must know of questions that this processor splits; once it is fitted."""
        return DataSchema(
            num_classes=2,
            class_names=("start", "end"),
            vocabulary_size=self.vocabulary_size,
            pad_id=self.pad_id,
            replacement_id=self.replacement_id,
            spans=True,
        )

    def windows(self, questions: list[Question]) -> WindowDataset:
        """The windows of all questions.

        Raises:
            InputError: A question leaves too little room for its context.
        """
        return WindowDataset(self.window_arrays(questions), questions, self.pad_id)

    def window_arrays(self, questions: list[Question]) -> dict[str, Array]:
        """The windows of all questions as flat arrays; their names are :data:`ARRAYS`.

        Raises:
            InputError: A question leaves too little room for its context.
        """
        self._tokenizer.enable_truncation(self.max_length, stride=self.stride, strategy="only_second")
        windows: list[Encoding] = []
        owner: list[int] = []
        try:
            for start in range(0, len(questions), CHUNK):
                part = questions[start : start + CHUNK]
                self._check_room(part)
                encodings = self._tokenizer.encode_batch([(one.text, one.context) for one in part])
                for number, encoding in enumerate(encodings, start):
                    own = [encoding, *encoding.overflowing]
                    windows += own
                    owner += [number] * len(own)
        finally:
            self._tokenizer.enable_truncation(self.max_length)
        spans = np.concatenate([_spans(encoding) for encoding in windows])
        offsets = offsets_of(len(encoding.ids) for encoding in windows)
        target = [
            _target(spans[first:end], questions[number])
            for number, first, end in zip(owner, offsets[:-1], offsets[1:], strict=True)
        ]
        return {
            "ids": token_ids(self._tokenizer, windows),
            "offsets": offsets,
            "special": np.concatenate([np.asarray(encoding.special_tokens_mask, dtype=bool) for encoding in windows]),
            "segments": np.concatenate([np.asarray(encoding.type_ids, dtype=np.int8) for encoding in windows]),
            "spans": spans,
            "target": np.array(target, dtype=np.int64).reshape(-1, 2),
            "owner": np.asarray(owner, dtype=np.int64),
        }

    @override
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "stride": self.stride}

    @override
    def state(self) -> dict[str, Any]:
        return {**super().state(), "stride": self.stride}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> QuestionProcessor:
        """The fitted processor that :meth:`state` described."""
        processor = cls(state["name_or_path"], state["max_length"], state["stride"])
        processor._set(state["tokenizer"], dict(state["special"]))
        return processor

    def _check_room(self, questions: Sequence[Question]) -> None:
        self._tokenizer.no_truncation()
        alone = self._tokenizer.encode_batch([one.text for one in questions], add_special_tokens=False)
        self._tokenizer.enable_truncation(self.max_length, stride=self.stride, strategy="only_second")
        least = self._tokenizer.num_special_tokens_to_add(True) + self.stride + 1
        for question, encoding in zip(questions, alone, strict=True):
            if len(encoding.ids) + least > self.max_length:
                raise InputError(
                    f"{question.place}: its {len(encoding.ids)} tokens leave too little of max_length "
                    f"{self.max_length} for windows that share {self.stride}: raise max_length or lower stride."
                )


def _spans(encoding: Encoding) -> Array:
    """Characters of each token of the context, shape ``(L, 2)``; -1 elsewhere."""
    own = np.array([side == 1 for side in encoding.sequence_ids])
    return np.where(own[:, None], np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2), -1)


def _target(spans: Array, question: Question) -> tuple[int, int]:
    """First and last token of the first answer, if all of it is in the window; else the first position twice."""
    if not question.answers:
        return 0, 0
    first, end = question.answers[0]
    context = np.flatnonzero(spans[:, 0] >= 0)
    if not len(context) or spans[context[0], 0] > first or spans[context[-1], 1] < end:
        return 0, 0
    within = context[(spans[context, 1] > first) & (spans[context, 0] < end)]
    return (int(within[0]), int(within[-1])) if len(within) else (0, 0)


def _evidence(offsets: Array, spans: Array, target: Array, owner: Array) -> tuple[Array, Array]:
    """Evidence of each token, shape ``(T,)``, and the chosen windows, shape ``(W,)``."""
    lengths = np.diff(offsets)
    place = np.arange(len(spans)) - np.repeat(offsets[:-1], lengths)
    first, last = (np.repeat(column, lengths) for column in target.T)
    context = spans[:, 0] >= 0
    answer = context & (place >= first) & (place <= last)
    evidence = np.where(context, answer.astype(np.float32), np.float32(np.nan))
    before = np.add.reduceat(context & (place < first), offsets[:-1]) if len(owner) else np.zeros(0)
    after = np.add.reduceat(context & (place > last), offsets[:-1]) if len(owner) else np.zeros(0)
    around = np.where(target[:, 1] > 0, np.minimum(before, after), -1)
    # the windows of a question stand together; the first of the best
    order = np.lexsort((np.arange(len(owner)), -around, owner))
    chosen = np.zeros(len(owner), dtype=bool)
    chosen[order[np.unique(owner[order], return_index=True)[1]]] = True
    return evidence, chosen
