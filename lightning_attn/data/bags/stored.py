"""Bags from files, read once into a cache that is opened memory-mapped: `StoredBagDataModule`."""

from __future__ import annotations

import errno
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data import cache
from lightning_attn.data.bags.base import Opened, SetDataModule
from lightning_attn.data.bags.dataset import BagDataset, Bags
from lightning_attn.data.bags.store import FeatureFile, RawBags
from lightning_attn.data.bags.streams import SPLITS
from lightning_attn.data.encoded import Array, offsets_of
from lightning_attn.data.files import digest
from lightning_attn.data.labels import Label, count_classes, encode_labels, find_classes, is_multi_label, stratified
from lightning_attn.errors import InputError
from lightning_attn.types import DataSchema


class StoredBagDataModule(SetDataModule):
    """Reads files of bags once, a part at a time, into a cache; batches take their instances from there.

    So the memory needed depends on a batch, and not on how many instances there are. A subclass says what to read.
    Splits are those that the files say; what is missing is carved from train, by bags, with about equal shares of each
    class, by ``seed`` alone; the notes say so.

    Args:
        val_share: Part of train that becomes ``val`` if there is none, in [0, 1); 0 goes without.
        test_share: Part of train that becomes ``test`` if there is none, in [0, 1); 0 goes without.
        cache_dir: Where prepared data are kept; None means LIGHTNING_ATTN_CACHE or ``~/.cache/lightning_attn``.
        batch_size: Bags of a training batch at most, on each process.
        seed: Decides what is carved, and the order of training bags.
        num_workers: Processes that make batches beside the main one.
        evaluation_batch_size: Bags of a batch in validation, test and prediction; None means ``batch_size``.
        max_instances: Instances of a batch at most; None for no limit.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        val_share: float = 0.1,
        test_share: float = 0.1,
        cache_dir: str | Path | None = None,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int | None = None,
        max_instances: int | None = None,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, evaluation_batch_size, max_instances)
        if min(val_share, test_share) < 0 or val_share + test_share >= 1:
            raise InputError(
                f"val_share {val_share} and test_share {test_share} must be 0 or more and add up to below 1."
            )
        self.shares = {"val": val_share, "test": test_share}
        self.cache_dir = cache_dir

    @abstractmethod
    def files(self) -> dict[str, list[Path]]:
        """The files of each split, or of "" if files do not say.

        Raises:
            InputError: They are missing.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values of the arguments that change what :meth:`read` gives."""

    @abstractmethod
    def read(self, features: FeatureFile) -> RawBags:
        """Read everything.

        Args:
            features: Where the instances go, bag after bag.

        Raises:
            InputError: The data cannot be read, or make no sense.
        """

    def prepare_data(self) -> None:
        """Read the files and write the cache, unless it is there. Lightning calls it on one process a machine."""
        self._entry()

    def open(self) -> Opened:
        """Open the cache, memory-mapped.

        Raises:
            InputError: A label is none of the classes.
        """
        found = self._entry()
        arrays, state = found.arrays, found.state
        chosen = {split: arrays[split] for split in SPLITS if split in arrays}
        labels: list[Label] = state["labels"]
        classes, multi_label = self._classes(labels, chosen, state["classes"])
        names = arrays["names"]
        target = np.zeros((len(labels), len(classes)) if multi_label else len(labels), dtype=np.float32)
        target = target if multi_label else target.astype(np.int64)
        for split, rows in chosen.items():

            def place(row: int, rows: Array = rows) -> str:
                return f"bag {str(names[rows[row]])!r}"

            target[rows] = encode_labels([labels[bag] for bag in rows], classes, multi_label, split, place)
        if self._restored is None:
            for name, count in zip(classes, count_classes(target[chosen["train"]], classes), strict=True):
                if count == 0:
                    raise InputError(f"The class {name!r} has no training bag; add one, or leave the class out.")
        bags = Bags(arrays["features"], arrays["offsets"], target, arrays.get("evidence"), names=names)
        schema = DataSchema(
            num_classes=len(classes),
            class_names=tuple(classes),
            multi_label=multi_label,
            feature_shape=bags.features.shape[1:],
        )
        return Opened({split: BagDataset(bags, rows) for split, rows in chosen.items()}, schema, found.notes)

    def _classes(
        self, labels: list[Label], chosen: dict[str, Array], known: list[str] | None
    ) -> tuple[list[str], bool]:
        if self._restored is not None:
            return list(self._restored.class_names), self._restored.multi_label
        if "train" not in chosen:
            raise InputError(
                f"There is no training split, only {', '.join(chosen)}: it is needed for class names, unless they come "
                "from a checkpoint."
            )
        train = [labels[bag] for bag in chosen["train"]]
        multi_label = is_multi_label(train)
        classes = known or find_classes(train)
        if len(classes) < (1 if multi_label else 2):
            raise InputError(
                f"The training bags have the label {', '.join(classes) or 'of no class'} only; at least "
                f"{'one class is' if multi_label else 'two classes are'} needed."
            )
        return classes, multi_label

    def _entry(self) -> cache.Prepared:
        files = self.files()
        facts = {
            "module": type(self).__name__,
            "files": {split: [[path.name, digest(path)] for path in paths] for split, paths in files.items()},
            "settings": self.settings(),
            "shares": self.shares,
            "seed": self.seed,
        }
        root = cache.cache_root(self.cache_dir)
        folder = root / cache.fingerprint(facts)
        found = cache.load(folder)
        if found is None:
            try:
                with cache.scratch(root) as scratch:
                    self._build(scratch, folder)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise InputError(
                    f"The disk of the cache folder {root} is full; set cache_dir, or LIGHTNING_ATTN_CACHE, to another."
                ) from error
            found = cache.load(folder)
        if found is None:
            raise InputError(f"The cache folder {folder} vanished while it was being written.")
        return found

    def _build(self, building: Path, folder: Path) -> None:
        entry = building / "entry"
        entry.mkdir()
        with FeatureFile(entry / "features.npy") as features:
            raw = self.read(features)
        splits, notes = self._divide(raw)
        arrays = {"offsets": offsets_of(raw.sizes), "names": np.array(raw.names, dtype=str), **splits}
        if raw.evidence is not None:
            arrays["evidence"] = raw.evidence.astype(np.float32)
        cache.publish(building, cache.Prepared(arrays, {"labels": raw.labels, "classes": raw.classes}, notes), folder)

    def _divide(self, raw: RawBags) -> tuple[dict[str, Array], list[str]]:
        """The bags of each split, ascending, and how they were found."""
        said = np.array([split or "train" for split in raw.splits])
        splits = {split: np.flatnonzero(said == split) for split in SPLITS if (said == split).any()}
        notes = [f"Found {', '.join(splits)}." if any(raw.splits) else f"Found {len(said):,} bags."]
        if raw.ignored:
            notes.append(f"Ignored {', '.join(raw.ignored)}.")
        if "train" not in splits:
            return splits, notes
        whole = len(splits["train"])
        for split, share in self.shares.items():
            if split in splits or share == 0:
                continue
            train = splits["train"]
            labels = [raw.labels[bag] for bag in train]
            stay, leave = stratified(labels, range(len(train)), share * whole / len(train), self.seed)
            if not len(leave):
                raise InputError(
                    f"There is no {split} split, and {len(train)} training bags are too few to carve {share:g} from "
                    f"each class; give one, or set {split}_share to 0."
                )
            splits[split], splits["train"] = train[leave], train[stay]
            notes.append(f"No {split} split was found: {len(leave):,} of {whole:,} training bags, by seed {self.seed}.")
        return splits, notes
