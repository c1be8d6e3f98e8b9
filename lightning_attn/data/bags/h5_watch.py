"""Files of HDF5 that would hang or crash the process that reads them: `watch_h5`."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lightning_attn.errors import InputError

#: Seconds without progress after which reading counts as hanging; the slowest part is importing h5py.
PATIENCE = 30.0
#: Reads all strings of variable length, and says so after each part.
_READER = """
import sys
sys.path = [place for place in sys.path if place]
import os, h5py
path = sys.stdin.read()
print(flush=True)
with h5py.File(path, "r") as file:
    for name in file:
        if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            continue
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual or not data.dtype.hasobject:
            continue
        if data.size * data.dtype.itemsize <= 10_000 * os.path.getsize(path):
            for start in range(0, len(data), 1000) if data.shape else ():
                data[start : start + 1000]
                print(flush=True)
"""


def watch_h5(path: Path) -> None:
    """Read strings of variable length in a process of its own, before this one does.

    libhdf5 runs for ever on some damaged ones, and nothing in the same process can stop it. What is damaged in any
    other way is left to whoever reads the file then. Takes about half a second.

    Raises:
        InputError: Reading the file hangs or ends the process.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _READER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="surrogateescape",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True).start()
    try:
        with suppress(BrokenPipeError):  # it failed before it read the name
            process.stdin.write(str(path))
            process.stdin.close()
        while lines.get(timeout=PATIENCE) is not None:
            pass
        status = process.wait()
    except queue.Empty:
        raise InputError(f"{path} is damaged: reading it does not end.") from None
    finally:
        process.kill()
        process.wait()
    if status < 0:
        raise InputError(f"{path} is damaged: reading it ends the process (signal {-status}).")


def _forward(lines: Iterable[str], into: queue.SimpleQueue[str | None]) -> None:
    for line in lines:
        into.put(line)
    into.put(None)
