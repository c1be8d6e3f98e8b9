"""Texts of any origin, tokenised once and cached: `CorpusDataModule`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_attn.data import cache
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.data.encoded import EncodedDataset
from lightning_attn.data.examples import Examples, encode_split
from lightning_attn.data.files import digest, digest_once, existing
from lightning_attn.data.labels import count_classes, encode_labels, find_classes, is_multi_label
from lightning_attn.data.processor import PairProcessor, TextProcessor
from lightning_attn.data.progress import track
from lightning_attn.data.vectors import read_word_vectors
from lightning_attn.data.word_processor import WordProcessor
from lightning_attn.errors import InputError
from lightning_attn.runs.checkpoint_file import read_schema, stored_part
from lightning_attn.types import Batch, DataSchema

MANY_UNKNOWN = 0.2  # share of the words of a split that the vocabulary may lack without a warning


class CorpusDataModule(AttentionDataModule):
    """Reads texts, tokenises them once into a cache, and opens the cache from then on.

    A subclass says what to read (:meth:`read`), which files that depends on (:meth:`files`) and which of its
    arguments (:meth:`settings`). Changed files or arguments make a new entry in the cache; the texts are not read
    otherwise.

    Args:
        processor: Tokenises; None means ``WordProcessor()``.
        word_vectors: GloVe or fastText text file (.txt, .vec, .gz) with vectors for the words; None for none.
        cache_dir: Where prepared data are kept; None means LIGHTNING_ATTN_CACHE or ``~/.cache/lightning_attn``.
        batch_size: Examples per training batch, on each process.
        seed: Decides the order of training examples, and whatever is drawn, carved or made; 0 or more.
        num_workers: Processes that make batches beside the main one; 0 is fastest for token ids.
        evaluation_batch_size: Examples per batch in validation, test and prediction; None means ``batch_size``.
    """

    on_disk = True  # False where making the texts is quicker than a cache is worth

    def __init__(
        self,
        processor: TextProcessor | None = None,
        word_vectors: str | Path | None = None,
        cache_dir: str | Path | None = None,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int | None = None,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, evaluation_batch_size)
        self._given = processor or WordProcessor()
        self._vectors = word_vectors
        self._cache_dir = cache_dir
        self._restored: dict[str, Any] | None = None
        self._prepared: cache.Prepared | None = None
        self._processor: TextProcessor | None = None

    @abstractmethod
    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The examples of each split there is, and sentences for the user on how they were found.

        Raises:
            InputError: The data cannot be read.
        """

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that :meth:`read` reads.

        Raises:
            InputError: They are missing.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values of the arguments that change what :meth:`read` gives."""

    def classes(self) -> list[str] | None:
        """Class names in the order of the logits if the task fixes them; None takes them from the training labels."""
        return None

    @property
    def processor(self) -> TextProcessor:
        """The fitted processor; there after :meth:`setup` or :meth:`restore`."""
        if self._processor is None:
            self._processor = TextProcessor.from_state(self.export()["processor"])
        return self._processor

    @property
    def schema(self) -> DataSchema:
        """What a network must know of the data; there after :meth:`setup` or :meth:`restore`."""
        return read_schema(self.export()["schema"])

    @property
    def splits(self) -> list[str]:
        """Names of the splits there are, among ``train``, ``val`` and ``test``; there after :meth:`setup`."""
        return [split for split in ("train", "val", "test") if f"{split}.ids" in self._ready.arrays]

    @property
    def _ready(self) -> cache.Prepared:
        if self._prepared is None:
            raise InputError(f"{type(self).__name__} has no data yet: call prepare_data() and setup() first.")
        return self._prepared

    def dataset(self, split: str) -> EncodedDataset:
        """The tokenised texts of a split; the labels of one that has none are -1.

        Raises:
            InputError: The data have no such split.
        """
        if split not in self.splits:
            raise InputError(f"The data have no {split} split; they have {', '.join(self.splits)}.")
        arrays = self._ready.arrays
        labels = arrays.get(f"{split}.labels")
        if labels is None:
            count = len(arrays[f"{split}.offsets"]) - 1
            columns = (self.schema.num_classes,) if self.schema.multi_label else ()
            labels = np.full((count, *columns), -1, dtype=np.float32 if columns else np.int64)
        return EncodedDataset(
            arrays[f"{split}.ids"],
            arrays[f"{split}.offsets"],
            arrays[f"{split}.special"],
            labels,
            self.schema.pad_id,
            arrays.get(f"{split}.evidence"),
            arrays.get(f"{split}.query_ids"),
            arrays.get(f"{split}.query_offsets"),
            arrays.get(f"{split}.segments"),
        )

    @override
    def test_dataloader(self) -> DataLoader[Batch]:
        if "test" in self.splits and "test.labels" not in self._ready.arrays:
            raise InputError(
                "The test split has no labels, so nothing can be measured on it: give it labels, or use predict."
            )
        return super().test_dataloader()

    @override
    def predict_dataloader(self) -> DataLoader[Batch]:
        return super().test_dataloader()  # labels are not needed

    def export(self) -> dict[str, Any]:
        """``processor``: its state; ``schema``: its values. A checkpoint stores both."""
        return self._ready.state if self._restored is None else self._restored

    def restore(self, state: dict[str, Any]) -> None:
        """Take vocabulary and class names from :meth:`export` of another run; call it before :meth:`setup`.

        Raises:
            InputError: They are not there.
        """
        self._restored = {name: stored_part(state, name) for name in ("processor", "schema")}
        self._processor = self._prepared = None

    def describe(self) -> str:
        """How the splits were found, their classes, what was cut, and what the vocabulary lacks: one line each."""
        shares = ", ".join(f"{split} {share:.1%}" for split, share in self._unknown_shares().items())
        return "\n".join([*self._ready.notes, *([f"Unknown words: {shares}."] if shares else [])])

    def word_vectors(self) -> Tensor | None:
        """Pretrained vectors, shape ``(V, E)``, NaN rows where a word has none; None if no file was given."""
        vectors = self._ready.arrays.get("vectors")
        return None if vectors is None else torch.from_numpy(np.array(vectors))

    def prepare_data(self) -> None:
        """Read, tokenise and write the cache, unless it is there. Lightning calls it on one process per machine."""
        if self.on_disk:
            self._open()

    def setup(self, stage: str | None = None) -> None:
        """Open the cache. The same for every stage; what is open stays open."""
        if self._prepared is None:
            self._prepared = self._open()
            rank_zero_info(self.describe())
            for split, share in self._unknown_shares().items():
                if share > MANY_UNKNOWN:
                    rank_zero_warn(
                        f"{share:.0%} of the words of {split} are not in the vocabulary, so little of them is read: "
                        "are they like the training texts, and are min_frequency and max_size of the processor right?"
                    )

    def _unknown_shares(self) -> dict[str, float]:
        """The share of words that are not in the vocabulary, of each split whose processor has such."""
        shares = {split: self._ready.arrays.get(f"{split}.unknown") for split in self.splits}
        return {split: float(share) for split, share in shares.items() if share is not None}

    def _open(self) -> cache.Prepared:
        if not self.on_disk:
            return self._build()
        facts = {
            "module": type(self).__name__,
            "files": [[path.name, digest(path)] for path in self.files()],
            "settings": self.settings(),
            "processor": self._given.settings(),
            "vectors": None if self._vectors is None else digest_once(existing(self._vectors, "file of word vectors")),
        }
        return cache.opened(cache.cache_root(self._cache_dir), facts, self._build, self._restored)

    def _build(self) -> cache.Prepared:
        splits, notes = self.read()
        for examples in splits.values():
            examples.check_texts()
        state = self._restored or self._learn(splits)
        processor = TextProcessor.from_state(state["processor"])
        schema = read_schema(state["schema"])
        classes, multi_label = list(schema.class_names), schema.multi_label
        prepared = cache.Prepared(state=state, notes=notes)
        what = "pairs (the longer text of them)" if isinstance(processor, PairProcessor) else "texts"
        for split, examples in splits.items():
            arrays, truncated = encode_split(examples, processor)
            if examples.labelled:
                arrays["labels"] = encode_labels(examples.labels, classes, multi_label, split, examples.place)
                counts = count_classes(arrays["labels"], classes)
                if split == "train" and self._restored is None:
                    _refuse_empty_classes(counts, classes, examples)
                shares = ", ".join(f"{name} {count:,}" for name, count in zip(classes, counts, strict=True))
                each = f"; {arrays['labels'].sum(axis=1).mean():.2g} labels per text" if multi_label else ""
                notes.append(f"{split}: {len(examples):,} texts ({shares}{each}).")
            else:
                notes.append(f"{split}: {len(examples):,} texts without labels, for predict alone.")
            if (unknown_id := processor.unknown_id) is not None:
                arrays["unknown"] = np.array((arrays["ids"][~arrays["special"]] == unknown_id).mean())
            if examples.evidence is not None:
                judged = sum(not np.isnan(values).all() for values in examples.evidence)
                notes.append(f"{split}: {judged:,} of {len(examples):,} texts have evidence.")
            prepared.arrays |= {f"{split}.{name}": array for name, array in arrays.items()}
            if truncated:
                notes.append(
                    f"{split}: {truncated:,} of {len(examples):,} {what} are longer than max_length "
                    f"{processor.max_length} and lose their end."
                )
        if isinstance(processor, WordProcessor):
            notes.append(f"Vocabulary: {processor.vocabulary_size:,} entries, from the training texts.")
        if self._vectors is not None:
            vectors, note = read_word_vectors(Path(self._vectors).expanduser(), processor)
            prepared.arrays["vectors"] = vectors
            notes.append(note)
        return prepared

    def _learn(self, splits: dict[str, Examples]) -> dict[str, Any]:
        if "train" not in splits:
            raise InputError(
                f"There is no training split, only {', '.join(splits)}: it is needed for vocabulary and class names, "
                "unless they come from a checkpoint."
            )
        train = splits["train"]
        processor = self._given.unfitted()
        processor.fit(track(train.all_texts(), "Building the vocabulary"))
        multi_label = is_multi_label(train.labels)
        joined = isinstance(processor, PairProcessor)
        classes = self.classes() or find_classes(train.labels)
        if not classes:
            raise InputError(f"{train.source} has no label in any example; at least one class is needed.")
        if len(classes) < 2 and not multi_label:
            raise InputError(f"{train.source} has the one label {classes[0]!r} only; at least two classes are needed.")
        schema = DataSchema(
            num_classes=len(classes),
            class_names=tuple(classes),
            multi_label=multi_label,
            vocabulary_size=processor.vocabulary_size,
            pad_id=processor.pad_id,
            replacement_id=processor.replacement_id,
            default_tokens=processor.default_tokens,
            query_vocabulary_size=None if train.queries is None or joined else processor.vocabulary_size,
        )
        return {"processor": processor.state(), "schema": {**asdict(schema), "class_names": list(classes)}}


def _refuse_empty_classes(counts: Sequence[int], classes: Sequence[str], examples: Examples) -> None:
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise InputError(
                f"The class {name!r} has no training example in {examples.source}; add one, or leave the class out."
            )
