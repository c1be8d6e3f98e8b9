"""From tables of instances to bags: `TableReader`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data.bags.store import FeatureFile, RawBags
from lightning_attn.data.bags.table_columns import Columns, Part, part_of
from lightning_attn.data.bags.table_parts import place_of, table_parts
from lightning_attn.data.encoded import Array
from lightning_attn.data.labels import Label
from lightning_attn.data.tables import split_of
from lightning_attn.errors import InputError


class TableReader:
    """Reads all tables, a part at a time.

    The rows of a bag need not stand together. Bags are numbered as they first appear; equal ids in files of different
    splits are different bags.

    Args:
        columns: Where everything stands.
        features: Where the instances go, in the order of the files.
    """

    def __init__(self, columns: Columns, features: FeatureFile) -> None:
        self.columns = columns
        self.features = features
        self.feature_names: list[str] = []
        self.begins: list[int] = []  # number of the first row of each file
        self.paths: list[Path] = []
        self.numbers: dict[tuple[str, str], int] = {}  # of bags, by split of the file and id
        self.labels: list[Label] = []
        self.splits: list[str] = []
        self.keys: dict[int, dict[str, None]] = {}  # ids of key instances, by bag
        self.bag: list[Array] = []  # of each row its bag, in parts
        self.key: list[Array] = []
        self.instance: list[Array] = []  # of each row a hash of bag and instance id

    def read(self, files: Mapping[str, Sequence[Path]]) -> tuple[RawBags, Array | None]:
        """Read the files of each split, or of "" if files do not say.

        Returns:
            The bags, and the order that brings the rows of each together, shape ``(N,)``; None if they stand so.

        Raises:
            InputError: The tables cannot be read, or contradict themselves.
        """
        for split, paths in files.items():
            for path in paths:
                self.begins.append(self.features.count)
                self.paths.append(path)
                for names, batch in table_parts(path, self.columns):
                    self._same_features(names, path)
                    width = None if self.features.shape is None else self.features.shape[0]
                    part = part_of(batch, self.columns, names, width, str(path), self._place_from_here)
                    self._add(split, part)
                    self.features.append(part.features)
        bag = np.concatenate(self.bag)
        order = None if (np.diff(bag) >= 0).all() else np.argsort(bag, kind="stable")
        evidence = self._evidence(bag)
        raw = RawBags(
            names=[name for _, name in self.numbers],
            labels=self.labels,
            sizes=np.bincount(bag),
            splits=self.splits,
            evidence=evidence if evidence is None or order is None else evidence[order],
            classes=None if isinstance(self.columns.label, str) else self.columns.label,
        )
        return raw, order

    def _same_features(self, names: list[str], path: Path) -> None:
        self.feature_names = self.feature_names or names
        if names != self.feature_names:
            first = self.feature_names
            raise InputError(
                f"{path} has {len(names)} columns of features, {names[0]} to {names[-1]}, but the files before it have "
                f"{len(first)}, {first[0]} to {first[-1]}."
            )

    def _add(self, split: str, part: Part) -> None:
        codes, names = part.bag
        bag = np.array([self.numbers.setdefault((split, name), len(self.numbers)) for name in names])[codes]
        found = np.unique(bag, return_index=True, return_inverse=True)
        self._take(self.labels, part.label, "label", *found)
        self._take(self.splits, self._split(part, split), "split", *found)
        self.bag.append(bag)
        if part.key is not None:
            self._check_key(part.key, bag)
            self.key.append(part.key)
        if part.instance is not None:
            self.instance.append(_hashes(bag, part.instance))
        if part.keys is not None:
            key_codes, lists = part.keys
            for number, code in np.unique(np.stack([bag, key_codes], axis=1), axis=0).tolist():
                self.keys.setdefault(number, {}).update(dict.fromkeys(lists[code]))

    def _take(
        self,
        known: list[Any],
        coded: tuple[Array, Sequence[Any]],
        what: str,
        bags: Array,
        firsts: Array,
        inverse: Array,
    ) -> None:
        """Let bags that are new here have what their first row says, and see that all rows say the same.

        Args:
            known: What the bags before have; it grows.
            coded: Of each row a code, and what the codes mean.
            what: What it is, for messages.
            bags: Numbers of the bags of these rows, ascending.
            firsts: First row of each of them.
            inverse: Of each row its place among ``bags``.
        """
        codes, values = coded
        if len(missing := np.flatnonzero(np.array([value is None for value in values])[codes])):
            row = int(missing[0])
            raise InputError(f"{self._place_from_here(row)}: the bag {self._name(bags[inverse[row]])!r} has no {what}.")
        known += [values[codes[row]] for row in firsts[bags >= len(known)]]
        code_of = {repr(value): code for code, value in enumerate(values)}
        expected = np.array([code_of.get(repr(known[bag]), -1) for bag in bags])[inverse]
        if len(wrong := np.flatnonzero(expected != codes)):
            row = int(wrong[0])
            bag = int(bags[inverse[row]])
            raise InputError(
                f"{self._place_from_here(row)}: the bag {self._name(bag)!r} has the {what} {values[codes[row]]!r}, but "
                f"{known[bag]!r} in a row before; a bag has one {what}."
            )

    def _split(self, part: Part, split: str) -> tuple[Array, list[str]]:
        """Of each row the code of a split, and the splits: those of the column, or that of the file."""
        if part.split is None:
            return np.zeros(len(part.features), dtype=np.int64), [split]
        codes, values = part.split
        found = [split_of(value) for value in values]
        if None in found:
            row = int(np.argmax(codes == found.index(None)))
            raise InputError(
                f"{self._place_from_here(row)}: the column {self.columns.split!r} holds {values[codes[row]]!r}, which "
                "names no split; it should be train, val or test."
            )
        known = {name: code for code, name in enumerate(dict.fromkeys(found))}
        return np.array([known[name] for name in found])[codes], [str(name) for name in known]

    def _check_key(self, key: Array, bag: Array) -> None:
        wrong = np.flatnonzero((key < 0) | (key > 1))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{self._place_from_here(row)}: an instance of the bag {self._name(bag[row])!r} has the key "
                f"{key[row]:g}; it should be from 0 to 1."
            )

    def _evidence(self, bag: Array) -> Array | None:
        """One number an instance, in the order of the rows."""
        if not self.instance:
            return np.concatenate(self.key) if self.key else None
        instance = np.concatenate(self.instance)
        order = np.argsort(instance, kind="stable")
        if len(again := np.flatnonzero(np.diff(instance[order]) == 0)):
            row = int(order[again + 1].min())
            raise InputError(
                f"{self._place(row)}: the bag {self._name(bag[row])!r} has an instance of this id already."
            )
        if self.columns.keys is None:
            return np.concatenate(self.key) if self.key else None
        evidence = np.zeros(len(bag), dtype=np.float32)
        for number, ids in self.keys.items():
            wanted = _hashes(np.full(len(ids), number), list(ids))
            where = order[np.minimum(np.searchsorted(instance, wanted, sorter=order), len(order) - 1)]
            if len(missing := np.flatnonzero(instance[where] != wanted)):
                raise InputError(
                    f"{', '.join(map(str, self.paths))}: the bag {self._name(number)!r} has the key "
                    f"{list(ids)[missing[0]]!r}, which is none of its instances."
                )
            evidence[where] = 1
        return evidence

    def _name(self, bag: int) -> str:
        return list(self.numbers)[bag][1]

    def _place_from_here(self, row: int) -> str:
        """Where a row stands, counted from the beginning of the part that is being read."""
        return self._place(self.features.count + row)

    def _place(self, row: int) -> str:
        file = int(np.searchsorted(self.begins, row, side="right")) - 1
        return place_of(self.paths[file], row - self.begins[file])


def _hashes(bag: Array, instances: list[str]) -> Array:
    """64 bits for each bag and instance id: two in a million instances are the same once in ten million tables."""
    from pandas.util import hash_array

    hashed = hash_array(np.array(instances, dtype=object), categorize=False)
    return np.asarray(hashed ^ (bag.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
