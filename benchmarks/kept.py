"""One figure an example, written into a JSON line in a few bytes."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def packed(values: Array) -> str:
    """Nearly three significant digits, compressed: a text of about two characters a value; NaN stays NaN.

    Args:
        values: Shape ``(N,)``, up to 65,000 in size.
    """
    half = np.asarray(values, dtype="<f2").copy()
    # Of half precision's eleven bits nine are kept.
    bits, finite = half.view("<u2"), np.isfinite(half)
    bits[finite] = (bits[finite] + 2) & ~np.uint16(3)
    # High and low bytes apart: the high ones, sign and exponent, repeat themselves.
    parted = half.view(np.uint8).reshape(-1, 2).T.tobytes()
    return base64.b85encode(zlib.compress(parted, 9)).decode()


def unpacked(text: str) -> Array:
    """What :func:`packed` was given, shape ``(N,)``, with a relative error of at most 1/512."""
    parted = np.frombuffer(zlib.decompress(base64.b85decode(text)), dtype=np.uint8)
    return np.ascontiguousarray(parted.reshape(2, -1).T).view("<f2").ravel().astype(np.float64)
