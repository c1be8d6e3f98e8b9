"""The idx format of MNIST: `unpacked`, `parse_idx`."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from lightning_attn.data.encoded import Array
from lightning_attn.data.files import open_binary
from lightning_attn.errors import InputError

UNSIGNED_BYTE = 8

#: md5 of MNIST's files. Of the files themselves: there are archives with the same content and other checksums.
PUBLISHED = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def unpacked(path: Path) -> bytes:
    """The content of a file; ``.gz`` is unpacked.

    Raises:
        InputError: It is damaged.
    """
    try:
        with open_binary(path) as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path} is damaged: it cannot be unpacked.") from None


def parse_idx(content: bytes, dims: int, path: Path) -> Array:
    """Unsigned bytes in ``dims`` dimensions.

    Big-endian: two zero bytes, the type (8), the number of dimensions, each dimension in 32 bits, and the values.

    Args:
        content: What the file holds.
        dims: How many dimensions it should have.
        path: Its name, for messages.

    Raises:
        InputError: The file is damaged, or holds something else.
    """
    header = 4 + 4 * dims
    if len(content) < header or content[:4] != bytes((0, 0, UNSIGNED_BYTE, dims)):
        raise InputError(f"{path} is no idx file of bytes in {dims} dimensions: it begins with {content[:4].hex(' ')}.")
    shape = struct.unpack(f">{dims}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise InputError(
            f"{path} should hold {math.prod(shape):,} values ({' x '.join(map(str, shape))}), but holds "
            f"{len(content) - header:,}: it is damaged."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
