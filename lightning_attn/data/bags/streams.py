"""Seeded streams of random numbers, one for each purpose and split: `stream`."""

from __future__ import annotations

import zlib

import numpy as np

SPLITS = ("train", "val", "test")


def stream(seed: int, purpose: str, split: str = "") -> np.random.Generator:
    """A generator (PCG64) that depends on its arguments alone: the same on every machine, independent of others.

    Args:
        seed: Of the data module, 0 or more.
        purpose: What is drawn, such as ``sizes``; two purposes never share numbers.
        split: The split it is drawn for; "" for what all splits share, such as the centres of clusters.
    """
    key = [zlib.crc32(word.encode()) for word in (purpose, split)]  # hash() differs from process to process
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
