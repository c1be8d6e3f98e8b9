"""Bags from files, read once into a cache that is opened memory-mapped: `StoredBagDataModule`."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from typing_extensions import override

from lightning_attn.data import cache
from lightning_attn.data.bags.base import Opened, SetDataModule
from lightning_attn.data.bags.dataset import SPLITS, BagDataset, Bags
from lightning_attn.data.encoded import Array, offsets_of
from lightning_attn.data.files import COMPRESSED, digest
from lightning_attn.data.labels import Label, count_classes, encode_labels, find_classes, is_multi_label, stratified
from lightning_attn.data.progress import track
from lightning_attn.data.tables import SPLIT_NAMES, split_of
from lightning_attn.errors import InputError
from lightning_attn.types import DataSchema

CHUNK = 1 << 24  # bytes of features that are in memory at a time


@dataclass
class RawBags:
    """B bags as files describe them, with N instances.

    Attributes:
        names: What each bag is called.
        labels: Class name or number of each bag, or a list of them.
        sizes: Instances of each bag, shape ``(B,)``, int64.
        splits: Split of each bag; "" where the files do not say.
        evidence: One number in [0, 1] per instance, bag after bag, NaN where unknown, shape ``(N,)``, float32; None if
            there are none.
        classes: Class names in the order of the logits, if the files say them.
        ignored: What else the files hold.
        order: Rows of the instances, as they were written, bag after bag, shape ``(N,)``; None if they stand so.
    """

    names: list[str]
    labels: list[Label]
    sizes: Array
    splits: list[str]
    evidence: Array | None = None
    classes: list[str] | None = None
    ignored: list[str] = field(default_factory=list)
    order: Array | None = None


class InstanceFile:
    """Features of instances on their way to the cache: a file that grows, so that they are never in memory together.

    Args:
        folder: Where it is made; others may write beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.shape: tuple[int, ...] | None = None
        self._path = folder / "instances"
        self._path.touch()

    def append(self, rows: Array) -> None:
        """Write instances, shape ``(n, ...)``, float32; the first decide the shape of all."""
        self.shape = self.shape or rows.shape[1:]
        with self._path.open("ab") as file:
            np.ascontiguousarray(rows).tofile(file)
        self.count += len(rows)

    def save(self, path: Path, order: Array | None) -> None:
        """Write all of them as one ``.npy`` array, in the order of rows given, shape ``(N,)``, or as they stand."""
        assert self.shape is not None
        shape = (self.count, *self.shape)
        step = rows_per_chunk(self.shape)
        begin = npy.open_memmap(path, "w+", np.dtype(np.float32), shape).offset
        with path.open("r+b") as file:
            file.seek(begin)
            for start in track(range(0, self.count, step), "Bringing bags together", total=self.count):
                # opened anew each time, so that what was read does not count as our memory any more
                rows = np.memmap(self._path, np.float32, "r", shape=shape)
                where = slice(start, start + step)
                np.ascontiguousarray(rows[where if order is None else order[where]]).tofile(file)


def rows_per_chunk(shape: Iterable[int]) -> int:
    """How many instances of a shape are worked on at a time."""
    return max(1, CHUNK // (4 * max(1, int(np.prod(list(shape))))))


def first_bad(rows: Array) -> tuple[int, int] | None:
    """Instance and feature (counted flat) of the first number that is NaN or infinite; None if all are finite."""
    if np.isfinite(rows).all():
        return None
    row, column = np.argwhere(~np.isfinite(rows.reshape(len(rows), -1)))[0]
    return int(row), int(column)


def listed(names: Sequence[str]) -> str:
    """Names out of a file for a message, in one line whatever they hold."""
    return ", ".join(name if name.isprintable() else repr(name) for name in names) or "none"


def kind_of(path: Path) -> str:
    """The ending that says how a file is to be read, without that of its compression."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def find_bag_files(path: str | Path, kinds: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each split in a folder; a file alone, or the only one of a folder, is of "": no split is known.

    Hidden files, such as the ``._name`` that some systems put beside a file, are no data.

    Args:
        path: A file or a folder.
        kinds: The endings that are read.

    Raises:
        InputError: There are none, or it is not clear which to take.
    """
    place = Path(path).expanduser()
    endings = ", ".join(kinds)
    if not place.exists():
        raise InputError(f"There is no file or folder of bags at {place}.")
    if place.is_file():
        if kind_of(place) not in kinds:
            raise InputError(f"{place} is none of {endings}.")
        return {"": [place]}
    candidates = [
        child
        for child in sorted(place.iterdir())
        if child.is_file() and kind_of(child) in kinds and not child.name.startswith(".")
    ]
    if not candidates:
        raise InputError(f"{place} holds no {endings} file.")
    if len(candidates) == 1 and split_of(candidates[0].stem) is None:
        return {"": candidates}
    files: dict[str, list[Path]] = {}
    for candidate in candidates:
        split = split_of(candidate.name.split(".")[0])
        if split is None:
            raise InputError(
                f"{candidate} is named after none of {', '.join(SPLIT_NAMES)}, as each of several must be; rename it, "
                "or give a single file."
            )
        files.setdefault(split, []).append(candidate)
    return {split: files[split] for split in SPLIT_NAMES if split in files}


class StoredBagDataModule(SetDataModule):
    """Reads files of bags once, a part at a time, into a cache; batches take their instances from there.

    So the memory needed depends on a batch, and not on how many instances there are. A subclass says what to read.
    Splits are those that the files say; what is missing is carved from train, by bags, with about equal shares of each
    class, by ``seed`` alone; the notes say so.

    Args:
        val_share: Part of train that becomes ``val`` if there is none, in [0, 1); 0 goes without.
        test_share: Part of train that becomes ``test`` if there is none, in [0, 1); 0 goes without.
        cache_dir: Where prepared data are kept; None means LIGHTNING_ATTN_CACHE or ``~/.cache/lightning_attn``.
        **kwargs: See `SetDataModule`.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self, val_share: float = 0.1, test_share: float = 0.1, cache_dir: str | Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
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
    def read(self, instances: InstanceFile) -> RawBags:
        """Read everything.

        Args:
            instances: Where the instances go, in the order of the files.

        Raises:
            InputError: The data cannot be read, or make no sense.
        """

    @override
    def prepare_data(self) -> None:
        self._entry()

    @override
    def open(self) -> Opened:
        entry = self._entry()
        arrays, state = entry.arrays, entry.state
        splits = {split: arrays[split] for split in SPLITS if split in arrays}
        labels: list[Label] = state["labels"]
        classes, multi_label = self._classes(labels, splits, state["classes"])
        names = arrays["names"]
        target = np.zeros((len(labels), len(classes)) if multi_label else len(labels), dtype=np.float32)
        target = target if multi_label else target.astype(np.int64)
        for split, bags in splits.items():

            def place(row: int, bags: Array = bags) -> str:
                return f"bag {str(names[bags[row]])!r}"

            target[bags] = encode_labels([labels[bag] for bag in bags], classes, multi_label, split, place)
        if self._restored is None:
            for name, count in zip(classes, count_classes(target[splits["train"]], classes), strict=True):
                if count == 0:
                    raise InputError(f"The class {name!r} has no training bag; add one, or leave the class out.")
        stored = Bags(arrays["features"], arrays["offsets"], target, arrays.get("evidence"), names=names)
        schema = DataSchema(
            num_classes=len(classes),
            class_names=tuple(classes),
            multi_label=multi_label,
            feature_shape=stored.features.shape[1:],
        )
        return Opened({split: BagDataset(stored, bags) for split, bags in splits.items()}, schema, entry.notes)

    def _classes(
        self, labels: list[Label], splits: dict[str, Array], names: list[str] | None
    ) -> tuple[list[str], bool]:
        if self._restored is not None:
            return list(self._restored.class_names), self._restored.multi_label
        if "train" not in splits:
            raise InputError(
                f"There is no training split, only {', '.join(splits)}: it is needed for class names, unless they come "
                "from a checkpoint."
            )
        train = [labels[bag] for bag in splits["train"]]
        multi_label = is_multi_label(train)
        classes = names or find_classes(train)
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
        entry = cache.load(folder)
        if entry is None:
            try:
                with cache.scratch(root) as scratch:
                    self._build(scratch, folder)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise InputError(
                    f"The disk of the cache folder {root} is full; set cache_dir, or LIGHTNING_ATTN_CACHE, to another."
                ) from error
            entry = cache.load(folder)
        if entry is None:
            raise InputError(f"The cache folder {folder} vanished while it was being written.")
        return entry

    def _build(self, scratch: Path, folder: Path) -> None:
        instances = InstanceFile(scratch)
        raw = self.read(instances)
        splits, notes = self._divide(raw)
        arrays = {"offsets": offsets_of(raw.sizes), "names": np.array(raw.names, dtype=str), **splits}
        if raw.evidence is not None:
            arrays["evidence"] = raw.evidence.astype(np.float32)
        (scratch / "entry").mkdir()
        instances.save(scratch / "entry" / "features.npy", raw.order)
        cache.publish(scratch, cache.Prepared(arrays, {"labels": raw.labels, "classes": raw.classes}, notes), folder)

    def _divide(self, raw: RawBags) -> tuple[dict[str, Array], list[str]]:
        """The bags of each split, ascending, and how they were found."""
        split_of_bag = np.array([split or "train" for split in raw.splits])
        splits = {split: np.flatnonzero(split_of_bag == split) for split in SPLITS if (split_of_bag == split).any()}
        notes = [f"Found {', '.join(splits)}." if any(raw.splits) else f"Found {len(raw.splits):,} bags."]
        if raw.ignored:
            notes.append(f"Ignored {listed(raw.ignored)}.")
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
