"""Bags as they come from files, on their way to the cache: `FeatureFile`, `RawBags`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from lightning_attn.data.encoded import Array
from lightning_attn.data.labels import Label
from lightning_attn.data.progress import track

CHUNK = 1 << 24  # bytes of features that are in memory at a time


@dataclass
class RawBags:
    """B bags as a file describes them, their N instances bag after bag.

    Attributes:
        names: What each bag is called.
        labels: Class name or number of each bag, or a list of them.
        sizes: Instances of each bag, shape ``(B,)``, int64.
        splits: Split of each bag; "" where the file does not say.
        evidence: One number in [0, 1] an instance, NaN where unknown, shape ``(N,)``, float32; None if there are none.
        classes: Class names in the order of the logits, if the file says them.
        ignored: What else the file holds.
    """

    names: list[str]
    labels: list[Label]
    sizes: Array
    splits: list[str]
    evidence: Array | None = None
    classes: list[str] | None = None
    ignored: list[str] = field(default_factory=list)


class FeatureFile:
    """A ``.npy`` file of float32 that grows, so that instances need not be in memory together.

    Args:
        path: Where it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.shape: tuple[int, ...] | None = None
        self._file: BinaryIO = path.open("w+b")

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.shape is not None and not self._file.closed:
            self._finish()
        self._file.close()

    def append(self, rows: Array) -> None:
        """Write instances, shape ``(n, ...)``; the first decide the shape of all."""
        if self.shape is None:
            self.shape = rows.shape[1:]
            self._header()
        self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data)
        self.count += len(rows)

    def reorder(self, order: Array) -> None:
        """Bring the instances into another order, a part at a time: which one comes where, shape ``(N,)``."""
        assert self.shape is not None
        self._finish()
        step = rows_in_chunk(self.shape)
        with FeatureFile(self.path.with_suffix(".ordered")) as ordered:
            for start in track(range(0, len(order), step), "Bringing bags together", total=len(order)):
                # opened anew each time, so that what was read does not count as our memory any more
                ordered.append(np.load(self.path, mmap_mode="r")[order[start : start + step]])
        ordered.path.replace(self.path)

    def _finish(self) -> None:
        self._file.seek(0)
        self._header()
        self._file.close()

    def _header(self) -> None:
        """NumPy leaves room in the header for the first dimension to grow."""
        assert self.shape is not None
        description = {"descr": "<f4", "fortran_order": False, "shape": (self.count, *self.shape)}
        npy.write_array_header_1_0(self._file, description)


def rows_in_chunk(shape: Iterable[int]) -> int:
    """How many instances of a shape are worked on at a time."""
    return max(1, CHUNK // (4 * max(1, int(np.prod(list(shape))))))


def first_bad(rows: Array) -> tuple[int, int] | None:
    """Instance and feature (counted flat) of the first number that is none or infinite; None if all are finite."""
    if np.isfinite(rows).all():
        return None
    row, column = np.argwhere(~np.isfinite(rows.reshape(len(rows), -1)))[0]
    return int(row), int(column)
