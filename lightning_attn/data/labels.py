"""From labels as they stand in files to class indices."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError

Label = str | int | list[str] | list[int]  # a list where an example may belong to several classes


def is_multi_label(labels: Sequence[Label]) -> bool:
    """Whether the examples carry lists of labels."""
    return any(isinstance(label, list) for label in labels)


def names_of(label: Label) -> list[str]:
    """The class names that an example carries."""
    return [str(name) for name in label] if isinstance(label, list) else [str(label)]


def find_classes(labels: Sequence[Label]) -> list[str]:
    """The distinct class names, by number if all are whole numbers, else by alphabet."""
    names = {name for label in labels for name in names_of(label)}
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def encode_labels(
    labels: Sequence[Label], classes: Sequence[str], multi_label: bool, split: str, place: Callable[[int], str]
) -> Array:
    """Class indices, shape ``(N,)``, int64; or one 0/1 column per class, shape ``(N, C)``, float32, if multi-label.

    Args:
        labels: N labels.
        classes: Class names, in the order of the logits.
        multi_label: Which of the two to give.
        split: Name of the split, for messages.
        place: Where a row stands, for messages.

    Raises:
        InputError: A label is not among the classes, or is a list although each example has one class.
    """
    positions = {name: position for position, name in enumerate(classes)}
    for row, label in enumerate(labels):
        if isinstance(label, list) and not multi_label:
            raise InputError(
                f"The {split} split has the list of labels {label!r} ({place(row)}), but each example of the training "
                "data has a single label; write one, not in a list."
            )
        for name in names_of(label):
            if name not in positions:
                names = ", ".join(map(repr, classes))
                raise InputError(
                    f"The {split} split has the unknown label {name!r} ({place(row)}); the classes of the training "
                    f"data are {names}."
                )
    if not multi_label:
        return np.array([positions[str(label)] for label in labels], dtype=np.int64)
    target = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, label in enumerate(labels):
        target[row, [positions[name] for name in names_of(label)]] = 1
    return target


def count_classes(target: Array, classes: Sequence[str]) -> list[int]:
    """Examples of each class in what :func:`encode_labels` gave."""
    if target.ndim == 2:
        return [int(count) for count in target.sum(axis=0)]
    return [int(count) for count in np.bincount(target, minlength=len(classes))]


def stratified(labels: Sequence[Label], groups: Sequence[object], share: float, seed: int) -> tuple[Array, Array]:
    """Rows that stay and rows that are split off, each in ascending order; about ``share`` of each class goes.

    The choice depends on the arguments alone, so it is the same on every machine. Rows of one group (equal texts)
    stay together. A class with one group only keeps it.

    Args:
        labels: N labels.
        groups: For each row what it must stay together with.
        share: Part to split off, in (0, 1).
        seed: Decides which.
    """
    first_of: dict[object, int] = {}
    group_of = np.array([first_of.setdefault(group, row) for row, group in enumerate(groups)], dtype=np.int64)
    firsts = np.unique(group_of)
    strata = _strata(labels, firsts)
    generator = np.random.default_rng(seed)
    off = []
    for stratum in np.unique(strata):
        members = generator.permutation(firsts[strata == stratum])
        off.append(members[: min(round(share * len(members)), len(members) - 1)])
    leaves = np.isin(group_of, np.concatenate(off))
    return np.flatnonzero(~leaves), np.flatnonzero(leaves)


def drawn(labels: Sequence[Label], size: int, seed: int) -> Array:
    """At most ``size`` rows, in ascending order: about an equal share of each class, and one at least if there is room.

    The choice depends on the arguments alone, so it is the same on every machine.

    Args:
        labels: N labels.
        size: How many, in [1, N).
        seed: Decides which.
    """
    kept, _ = stratified(labels, range(len(labels)), 1 - size / len(labels), seed)
    if len(kept) <= size:
        return kept
    # rounding left a few too many: number the rows of each class and take low numbers first, so that large classes lose
    kept = np.random.default_rng(seed).permutation(kept)
    strata = _strata(labels, kept)
    numbers = np.zeros(len(kept), dtype=np.int64)
    for stratum in np.unique(strata):
        numbers[strata == stratum] = np.arange(np.count_nonzero(strata == stratum))
    return np.sort(kept[np.argsort(numbers, kind="stable")[:size]])


def _strata(labels: Sequence[Label], rows: Array) -> Array:
    return np.array(["\0".join(sorted(names_of(labels[row]))) for row in rows])
