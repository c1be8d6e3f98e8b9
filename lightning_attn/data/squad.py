"""Questions that a span of a text answers, from files in the format of SQuAD: `SQuADDataModule`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from lightning_attn.data import cache
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.data.files import digest, existing
from lightning_attn.data.processor import TextProcessor
from lightning_attn.data.questions import Question, read_questions
from lightning_attn.data.windows import ARRAYS, QuestionProcessor, WindowDataset
from lightning_attn.errors import InputError
from lightning_attn.runs.checkpoint_file import read_schema, stored_part
from lightning_attn.types import DataSchema


class SQuADDataModule(AttentionDataModule):
    """Questions and contexts, one JSON file per split, tokenised once into a cache.

    A split that has no file is carved from the training file, whole articles of it, by ``seed``; XQuAD's one file gives
    all three splits. A context that is too long is read in overlapping windows, each an example of its own; a window
    without the answer, and a question without one, has the first position as its target.

    Source: Rajpurkar et al., EMNLP 2016, https://aclanthology.org/D16-1264; Artetxe et al., ACL 2020,
    https://aclanthology.org/2020.acl-main.421

    Args:
        train: File of the training questions.
        processor: Tokenises; its name is that of the network.
        val: File of the validation questions; None carves ``val_share``.
        test: File of the test questions; None carves ``test_share``.
        val_share: Part of the training articles that becomes ``val`` if it has no file, in [0, 1); 0 goes without.
        test_share: The same for ``test``.
        cache_dir: Where tokenised windows are kept; None means LIGHTNING_ATTN_CACHE or ``~/.cache/lightning_attn``.
        batch_size: Windows per training batch, on each process.
        **kwargs: Those of `AttentionDataModule`, such as ``seed``.

    Raises:
        InputError: The shares are out of their range.
    """

    def __init__(
        self,
        train: str | Path,
        processor: QuestionProcessor,
        val: str | Path | None = None,
        test: str | Path | None = None,
        val_share: float = 0.1,
        test_share: float = 0.1,
        cache_dir: str | Path | None = None,
        batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size, **kwargs)
        if min(val_share, test_share) < 0 or val_share + test_share >= 1:
            raise InputError(f"val_share {val_share} and test_share {test_share} must be 0 or more, together below 1.")
        paths = {"train": train, "val": val, "test": test}
        self.paths = {split: path for split, path in paths.items() if path is not None}
        self.shares = {"val": val_share, "test": test_share}
        self._given = processor
        self._cache_dir = cache_dir
        self._restored: dict[str, Any] | None = None
        self._prepared: cache.Prepared | None = None
        self._windows: dict[str, WindowDataset] = {}

    @property
    def schema(self) -> DataSchema:
        """What a network must know of the data; there after :meth:`setup` or :meth:`restore`."""
        return read_schema(self.export()["schema"])

    @property
    def splits(self) -> list[str]:
        """Names of the splits there are; there after :meth:`setup`."""
        return [split for split in ("train", "val", "test") if split in self._windows]

    def dataset(self, split: str) -> WindowDataset:
        """The windows of a split.

        Raises:
            InputError: The data have no such split.
        """
        if split not in self._windows:
            raise InputError(f"The data have no {split} split; they have {', '.join(self.splits) or 'none yet'}.")
        return self._windows[split]

    def export(self) -> dict[str, Any]:
        """``processor``: its state; ``schema``: its values. A checkpoint stores both."""
        if self._restored is not None:
            return self._restored
        if self._prepared is None:
            raise InputError("SQuADDataModule has no data yet: call prepare_data() and setup() first.")
        return self._prepared.state

    def restore(self, state: dict[str, Any]) -> None:
        """Take the tokenizer from :meth:`export` of another run; call it before :meth:`setup`."""
        self._restored = {name: stored_part(state, name) for name in ("processor", "schema")}
        self._prepared, self._windows = None, {}

    def describe(self) -> str:
        """How the splits were found, and how many questions needed windows: one line each."""
        return "" if self._prepared is None else "\n".join(self._prepared.notes)

    def prepare_data(self) -> None:
        """Read, tokenise and write the cache, unless it is there. Lightning calls it on one process per machine."""
        self._open()

    def setup(self, stage: str | None = None) -> None:
        """Open the cache. The same for every stage; what is open stays open."""
        if self._windows:
            return
        self._prepared = self._open()
        arrays, pad_id = self._prepared.arrays, self.schema.pad_id
        splits, _ = self._read()
        self._windows = {
            split: WindowDataset({name: arrays[f"{split}.{name}"] for name in ARRAYS}, questions, pad_id)
            for split, questions in splits.items()
        }
        rank_zero_info(self.describe())

    def _open(self) -> cache.Prepared:
        files = {split: existing(path, f"file of {split} questions") for split, path in self.paths.items()}
        facts = {
            "module": type(self).__name__,
            "files": [[split, digest(path)] for split, path in files.items()],
            "settings": [self.shares, self.seed],
            "processor": self._given.settings(),
        }
        return cache.opened(cache.cache_root(self._cache_dir), facts, self._build, self._restored)

    def _build(self) -> cache.Prepared:
        splits, notes = self._read()
        state = self._restored or self._learn()
        processor = TextProcessor.from_state(state["processor"])
        assert isinstance(processor, QuestionProcessor)
        prepared = cache.Prepared(state=state, notes=notes)
        for split, questions in splits.items():
            arrays = processor.window_arrays(questions)
            prepared.arrays |= {f"{split}.{name}": array for name, array in arrays.items()}
            without = sum(not question.answers for question in questions)
            several = int((np.bincount(arrays["owner"]) > 1).sum())
            notes.append(
                f"{split}: {len(questions):,} questions ({without:,} without an answer) in {len(arrays['owner']):,} "
                f"windows; the contexts of {several:,} are longer than max_length {processor.max_length} allows."
            )
        return prepared

    def _learn(self) -> dict[str, Any]:
        processor = self._given.unfitted()
        assert isinstance(processor, QuestionProcessor)
        processor.fit([])
        schema = processor.schema()
        values = {**asdict(schema), "class_names": list(schema.class_names)}
        return {"processor": processor.state(), "schema": values}

    def _read(self) -> tuple[dict[str, list[Question]], list[str]]:
        """The questions of each split, and how the splits were found."""
        notes = []
        splits = {
            split: read_questions(existing(path, f"file of {split} questions")) for split, path in self.paths.items()
        }
        groups = sorted({question.group for question in splits["train"]})
        order = np.random.default_rng(self.seed).permutation(len(groups)).tolist()
        for split, share in self.shares.items():
            if split in splits or share == 0:
                continue
            count = round(share * len(groups))
            if not 0 < count < len(order):
                raise InputError(
                    f"There is no {split} file, and {len(groups)} articles are too few to carve {share:g} of them; "
                    f"give a file, or set {split}_share to 0."
                )
            leave, order = {groups[place] for place in order[:count]}, order[count:]
            splits[split] = [question for question in splits["train"] if question.group in leave]
            splits["train"] = [question for question in splits["train"] if question.group not in leave]
            notes.append(f"No {split} file: {count} of {len(groups)} articles, by seed {self.seed}.")
        return splits, notes
