"""Damage to files: bytes of any format, and values of those that hold trees or arrays."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

# Pieces with a meaning in one format or another.
PIECES = (
    *(b'"', b"'", b"\n", b"\r", b"\r\n", b"\t", b",", b"|", b"\0", b"\xff", b"\x80\x81", b"\xef\xbb\xbf", b"\xfe\xff"),
    *(b"[", b"]", b"{", b"}", b"(", b")", b"[" * 2000, b"{" * 300, b"(" * 5000, b": ", b"- ", b"&a *a", b"<<: "),
    *(b"\\ud800", b"\\u0000", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\x1b[31m", b"\x85", b" ", b"\xe5\xa5\xbd"),
    *(b"null", b"true", b"NaN", b"nan", b"Infinity", b"-1", b"0", b"0.5", b"1e999", b"1e40", b"9" * 25, b"9" * 5000),
    *(b"0x10", b"1_000", b"\xd9\xa3", b"!!python/object/apply:os.getcwd []", b"x" * 3000, b"\xff\xff\xff\x7f"),
)
# What stands where a tree should have something else.
VALUES = (
    *(None, True, False, 0, 1, -1, 3, 10**12, 10**30, 0.5, -0.5, float("nan"), float("inf"), "", " ", "x", "1", "nan"),
    *("None", "a\0b", "a\nb", "\x1b[31mred", "\u202egnp", "\ud800", "x" * 3000, [], {}, [[]], [None], [1], ["a"]),
    *({"a": 1}, {"class_path": "os.system"}, {"class_path": "builtins.dict", "init_args": {}}, [0.5, "a", None]),
)
DTYPES = ("float16", "float64", "complex64", "int8", "int64", "uint64", "bool", "S4", "U4", "datetime64[s]")


def mutated(name: str, content: bytes, generator: random.Random) -> bytes:
    """A file with something wrong in it, most times.

    Args:
        name: Of the file; its ending says what it holds.
        content: What it holds.
        generator: What decides.
    """
    path = PurePath(name)
    if path.suffix in (".gz", ".xz") and generator.random() < 0.7:
        unpack, pack = (gzip.decompress, gzip.compress) if path.suffix == ".gz" else (lzma.decompress, lzma.compress)
        return pack(mutated(path.stem, unpack(content), generator))
    structured = STRUCTURED.get(path.suffix)
    if structured is not None and generator.random() < 0.6:
        with contextlib.suppress(Exception):  # the format cannot hold such values
            return structured(content, generator)
    return _bytes(content, generator)


def _bytes(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 1, 1, 2, 3, 9])):
        changed = bytearray(generator.choice(_BYTES)(changed, generator))
    return bytes(changed)


def _place(content: bytes, generator: random.Random) -> int:
    return generator.randrange(max(1, len(content)))


def _flip(content: bytearray, generator: random.Random) -> bytes:
    if content:
        content[_place(content, generator)] ^= 1 << generator.randrange(8)
    return content


def _exchange(content: bytearray, generator: random.Random) -> bytes:
    place = _place(content, generator)
    piece = generator.choice(PIECES)
    return content[:place] + piece + content[place + len(piece) :]


def _insert(content: bytearray, generator: random.Random) -> bytes:
    place = _place(content, generator)
    return content[:place] + generator.choice(PIECES) + content[place:]


def _noise(content: bytearray, generator: random.Random) -> bytes:
    place = _place(content, generator)
    return content[:place] + generator.randbytes(generator.randrange(1, 9)) + content[place:]


def _cut(content: bytearray, generator: random.Random) -> bytes:
    place = _place(content, generator)
    return content[:place] + content[place + generator.randrange(1, 40) :]


def _truncate(content: bytearray, generator: random.Random) -> bytes:
    return content[: _place(content, generator)]


def _splice(content: bytearray, generator: random.Random) -> bytes:
    place, other = _place(content, generator), _place(content, generator)
    return content[:place] + content[other : other + generator.randrange(1, 200)] + content[place:]


def _all_of_one_byte(content: bytearray, generator: random.Random) -> bytes:
    byte = bytes([content[_place(content, generator)]]) if content else b" "
    return content.replace(byte, generator.choice((b"", b"9", b'"', b"\n", b"\t")), generator.randrange(1, 6))


def _lines(content: bytearray, generator: random.Random) -> bytes:
    lines = bytes(content).split(b"\n")
    place = generator.randrange(len(lines))
    kind = generator.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(generator.randrange(len(lines) + 1), lines[place])
    elif kind == 2:
        generator.shuffle(lines)
    elif kind == 3:
        lines[place] = b""
    else:
        lines = lines[:1] if generator.random() < 0.5 else lines[1:]
    return b"\n".join(lines)


def _whole(content: bytearray, generator: random.Random) -> bytes:
    return generator.choice(
        [
            b"",
            b"\n",
            b"\0" * 100,
            b"\xef\xbb\xbf" + content,
            b"\xef\xbb\xbf",
            content.decode("latin-1").encode("utf-16"),
            bytes(content).replace(b"\n", b"\r\n"),
            bytes(content).replace(b"\n", b"\r"),
            bytes(content) * 2,
            bytes(content)[::-1],
            b"[" * 100_000,
            b'{"a":' * 5_000,
        ]
    )


_BYTES = (_flip, _exchange, _insert, _insert, _noise, _cut, _truncate, _splice, _all_of_one_byte, _lines, _whole)


def change_tree(tree: Any, generator: random.Random) -> Any:
    """A tree of lists, dicts and leaves with one to three places changed, in place where that can be."""
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        places: list[tuple[Any, Any]] = []
        _collect(tree, places)
        if not places or generator.random() < 0.02:
            return generator.choice(VALUES)
        owner, key = generator.choice(places)
        value = owner[key]
        kind = generator.randrange(8)
        if kind == 0:
            del owner[key]
        elif kind == 1 and isinstance(owner, list):
            owner.append(value)
        elif kind == 1:
            owner[generator.choice(["x", "", "class_path", "init_args", 3, None])] = value
        elif kind == 2:  # of another place
            other, there = generator.choice(places)
            owner[key] = _copy(other[there])
        elif kind == 3:
            owner[key] = str(value)[:500] if not isinstance(value, str) else [value]
        elif kind == 4:
            for _ in range(generator.choice([1, 3, 400])):
                value = [value] if generator.random() < 0.5 else {"a": value}
            owner[key] = value
        else:
            owner[key] = _leaf(value, generator)
    return tree


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _collect(tree: Any, places: list[tuple[Any, Any]]) -> None:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        places.append((tree, key))
        _collect(tree[key], places)


def _leaf(value: Any, generator: random.Random) -> Any:
    """Another leaf; for a tensor, most times another tensor."""
    if not isinstance(value, torch.Tensor) or generator.random() < 0.2:
        return generator.choice(VALUES)
    kind = generator.randrange(6)
    if kind == 0:
        return value.to(generator.choice([torch.int64, torch.float64, torch.complex64, torch.bool, torch.float16]))
    if kind == 1:
        return value[..., None].repeat_interleave(2, -1)
    if kind == 2:
        return value.flatten()[:-1]
    if kind == 3:
        return torch.full_like(value, generator.choice([0, 1])) if not value.is_floating_point() else value * torch.nan
    if kind == 4:
        return torch.empty(0)
    return value.float().expand(2, *value.shape) * torch.inf


def _json(content: bytes, generator: random.Random) -> bytes:
    return json.dumps(change_tree(json.loads(content), generator)).encode()


def _json_lines(content: bytes, generator: random.Random) -> bytes:
    lines = content.splitlines()
    place = generator.randrange(len(lines))
    lines[place] = _json(lines[place], generator)
    return b"\n".join(lines)


def _yaml(content: bytes, generator: random.Random) -> bytes:
    tree = change_tree(yaml.safe_load(content), generator)
    return json.dumps(tree).encode() if generator.random() < 0.2 else yaml.safe_dump(tree).encode("utf-8", "replace")


def _checkpoint(content: bytes, generator: random.Random) -> bytes:
    tree = change_tree(torch.load(io.BytesIO(content), weights_only=True), generator)
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def _array(array: Any, generator: random.Random) -> Any:
    """Other values, type or shape."""
    kind = generator.randrange(9)
    if kind == 0 and array.dtype.kind in "fiub":
        with np.errstate(all="ignore"):
            return array.astype(generator.choice(DTYPES))
    if kind == 1:
        return array[..., None]
    if kind == 2:
        return array[:-1] if array.ndim else array
    if kind == 3:
        return array[:0] if array.ndim else array[None]
    if kind == 4:
        return np.array(generator.choice([0, -1, 1.5, np.nan]))
    if kind == 5 and array.dtype.kind == "f":
        return np.full_like(array, generator.choice([np.nan, np.inf, -1e300 if array.itemsize == 8 else -1]))
    if kind == 6 and array.dtype.kind == "i":
        return np.full_like(array, generator.choice([-1, 0, np.iinfo(array.dtype).max, np.iinfo(array.dtype).min]))
    if kind == 7 and array.ndim:
        return np.concatenate([array, array])
    return np.array(["a", "\udcff", "x" * 300][: generator.randrange(1, 4)], dtype=object).astype("U")


def _one_array(arrays: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    name = generator.choice(list(arrays))
    if generator.random() < 0.15:
        arrays[generator.choice(["id", "key", "keys", "split", "class_names", "x"])] = arrays.pop(name)
    else:
        arrays[name] = _array(arrays[name], generator)
    return arrays


def _npy(content: bytes, generator: random.Random) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, _array(np.load(io.BytesIO(content)), generator))
    return buffer.getvalue()


def _npz(content: bytes, generator: random.Random) -> bytes:
    buffer = io.BytesIO()
    with np.load(io.BytesIO(content)) as arrays:
        save = np.savez if generator.random() < 0.5 else np.savez_compressed
        save(buffer, **_one_array(dict(arrays), generator))
    return buffer.getvalue()


def _h5(content: bytes, generator: random.Random) -> bytes:
    with h5py.File(io.BytesIO(content)) as file:
        arrays = _one_array({name: array[...] for name, array in file.items()}, generator)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            if array.dtype.kind == "U":
                array = np.char.encode(array, "utf-8", "surrogateescape")
            if array.dtype.kind != "M":
                file[name] = array
    return buffer.getvalue()


def _parquet(content: bytes, generator: random.Random) -> bytes:
    rows = change_tree(pq.read_table(io.BytesIO(content)).to_pylist(), generator)
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(rows), buffer)
    except Exception:  # no table has such rows: one column of such a type instead
        table = pq.read_table(io.BytesIO(content))
        place = generator.randrange(table.num_columns)
        kind = generator.choice(
            [pa.binary(), pa.null(), pa.float64(), pa.bool_(), pa.dictionary(pa.int8(), pa.string())]
        )
        column = pa.nulls(table.num_rows, kind)
        if table.column(place).type == pa.string() and generator.random() < 0.6:
            bad = pa.array([b"\xff\xfe" * (row % 2) + b"a" for row in range(table.num_rows)])
            column = bad if generator.random() < 0.3 else bad.view(pa.string())
        pq.write_table(table.set_column(place, table.column_names[place], column), buffer)
    return buffer.getvalue()


STRUCTURED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".yaml": _yaml,
    ".ckpt": _checkpoint,
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _h5,
    ".parquet": _parquet,
}
