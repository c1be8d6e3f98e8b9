"""Files of an offline Weights & Biases run, read back."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import wandb
from google.protobuf.message import DecodeError
from wandb.proto import wandb_internal_pb2 as pb


def offline_records(path: Path) -> Iterator[pb.Record]:
    """Records of a .wandb file: a log in blocks of 32 KiB, each piece behind a checksum, a length and a kind."""
    data, position, parts = path.read_bytes(), 7, []
    while position + 7 <= len(data):
        if (room := 32768 - position % 32768) < 7:  # no piece starts in the last bytes of a block
            position += room
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        if position + 7 + size > len(data):  # still being written
            return
        parts.append(data[position + 7 : position + 7 + size])
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield pb.Record.FromString(b"".join(parts))
            parts = []


def finished_run(place: Path) -> Path:
    """Finish the run; its folder once all is written, by a process that may still be at it on a busy machine."""
    wandb.finish()
    folder = next(place.glob("wandb/offline-run-*"))
    path, until = next(folder.glob("*.wandb")), time.monotonic() + 60
    while not _has_ended(path):
        assert time.monotonic() < until, f"{path} does not come to its end"
        time.sleep(0.1)
    return folder


def _has_ended(path: Path) -> bool:
    try:
        return "exit" in [record.WhichOneof("record_type") for record in offline_records(path)]
    except DecodeError:  # read in the middle of a write
        return False
