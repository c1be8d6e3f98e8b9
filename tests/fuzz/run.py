"""Reading a damaged file, and what may come of it."""

from __future__ import annotations

import contextlib
import io
import random
import re
import shutil
import signal
import traceback
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_attn.errors import InputError
from tests.fuzz.formats import FORMATS, Files, Format
from tests.fuzz.mutate import mutated

SECONDS = 10  # that reading one input may take
LONGEST = 600  # characters of a sentence
_OURS = "lightning_attn"
#: What Python shows to nobody who did not ask.
_QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
_LEFT_OUT = re.compile(r"left out|Ignored|without labels|over and over|not read|dropped", re.IGNORECASE)


class Hang(BaseException):
    """Reading takes too long; no ``except Exception`` of a reader may swallow it."""


@dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Attributes:
        kind: ``accepted``, ``refused``, or what is wrong: ``traceback``, ``hang``, ``loss``, ``warning``, ``sentence``.
        text: The sentence, or what is wrong.
    """

    kind: str
    text: str = ""

    @property
    def fine(self) -> bool:
        """Whether it may be so."""
        return self.kind in ("accepted", "refused")


def damage(name: str, seed: int, number: int) -> Files:
    """The files of an input; number 0 is undamaged."""
    form = FORMATS[name]
    files = dict(form.make())
    if number:
        generator = random.Random(zlib.crc32(f"{name} {seed} {number}".encode()))
        file = generator.choice([file for file in files if file.endswith(form.damaged)])
        files[file] = mutated(file, files[file], generator)
    return files


def write(files: Files, folder: Path) -> None:
    """Into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def attempt(form: Format, folder: Path) -> Outcome:
    """Read what is in a folder."""
    with warnings.catch_warnings(record=True) as caught, _alarm(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            rows, notes = form.read(folder)
        except InputError as error:
            return _judged(str(error))
        except Hang:
            return Outcome("hang", traceback.format_exc())
        except Exception:
            return Outcome("traceback", traceback.format_exc())
    foreign = [f"{warning.filename}:{warning.lineno}: {warning.message}" for warning in caught if _reaches(warning)]
    if foreign:
        return Outcome("warning", "\n".join(foreign))
    try:
        expected = form.count(folder)
    except Exception:  # it refuses what we read: we may know better
        expected = None
    if expected is not None and expected != rows and not (_LEFT_OUT.search(notes) and rows < expected):
        return Outcome("loss", f"{rows} rows were read, and there are {expected}. {notes}")
    return Outcome("accepted")


def _judged(sentence: str) -> Outcome:
    if len(sentence) > LONGEST or any(unicodedata.category(character) == "Cc" for character in sentence):
        return Outcome("sentence", f"{len(sentence)} characters: {sentence[:1000]!r}")
    return Outcome("refused", sentence)


def _reaches(warning: warnings.WarningMessage) -> bool:
    return not issubclass(warning.category, _QUIET) and f"/{_OURS}/" not in warning.filename


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
