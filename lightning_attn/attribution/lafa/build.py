"""Making the files of an index of neighbours, in pieces that survive an interruption."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from lightning_attn.attribution.base import Attribution
from lightning_attn.attribution.lafa.reading import Reader, Reading, fingerprint, text_digests
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import check_same_data, is_plain
from lightning_attn.ops.files import replacing, write_text
from lightning_attn.types import Batch

if TYPE_CHECKING:  # data bring Lightning along, which explaining does without
    from lightning_attn.data.base import AttentionDataModule
    from lightning_attn.data.encoded import EncodedDataset

VERSION = 1  # raise it when files of the same settings come to hold something else
DESCRIPTION = "index.json"
#: Arrays by name: type, and shape in the numbers of the description.
ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vectors": ("float32", ("texts", "size")),
    "norms": ("float32", ("texts",)),
    "digests": ("int64", ("texts",)),
    "predicted": ("int64", ("texts",)),
    "offsets": ("int64", ("bounds",)),
    "tokens": ("int32", ("tokens",)),
    "scores": ("float32", ("tokens",)),
    "distances": ("float32", ("pairs",)),
}


@dataclass(frozen=True)
class Description:
    """What an index was made of; plain values, kept beside the arrays.

    Attributes:
        fingerprint: Of the network, see :func:`fingerprint`.
        data: Of the training texts' ids.
        layer: Whose states the vectors are, see :class:`Reader`.
        base: Name of the attribution whose numbers are kept.
        options: Its options.
        texts: N, number of texts.
        tokens: T, number of their tokens, special ones left out.
        size: D, numbers in a vector.
        pairs: How many distances of random pairs are kept.
    """

    fingerprint: str
    data: str
    layer: str
    base: str
    options: dict[str, Any]
    texts: int
    tokens: int
    size: int
    pairs: int

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array."""
        return tuple(self.texts + 1 if axis == "bounds" else int(getattr(self, axis)) for axis in ARRAYS[name][1])


def read_description(folder: Path) -> Description:
    """What the index in a folder was made of.

    Raises:
        InputError: There is no index, or it is unfinished, damaged or of another version.
    """
    if not folder.is_dir():
        raise InputError(f"There is no index of neighbours at {folder}: make one with lightning index.")
    file = folder / DESCRIPTION
    if not file.is_file():
        raise InputError(
            f"{folder} holds no finished index of neighbours: if lightning index was interrupted, run it again."
        )
    try:
        values = json.loads(file.read_text())
        version = values.pop("version")
        description = Description(**values)
        sizes = (description.texts, description.tokens, description.size, description.pairs)
        if any(type(size) is not int or size < 0 for size in sizes):
            raise ValueError("sizes are whole numbers")
        if not isinstance(description.layer, str) or not isinstance(description.base, str):
            raise ValueError("names are strings")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is damaged: make the index again with lightning index.") from error
    if version != VERSION:
        raise InputError(f"The index {folder} has version {version}, and {VERSION} is needed: make it again.")
    return description


#: Distances of random pairs that are kept, for the cut-off.
PAIRS = 20_000
_PROGRESS = "progress.json"
_LONG = 2_000  # texts; fewer are read before a bar could be
_SAVED_EVERY = 16  # batches
_ZEROS = 1 << 24  # bytes at a time
_SEED = 0x1AFA

Array = npt.NDArray[Any]


def build_index(
    network: AttentionNetwork,
    datamodule: AttentionDataModule,
    folder: Path,
    layer: str,
    method: Attribution,
    base: str,
    options: dict[str, Any],
    max_tokens: int,
) -> None:
    """Write an index, see :meth:`NeighbourIndex.build`.

    Args:
        network: See there.
        datamodule: See there.
        folder: See there.
        layer: See there.
        method: Attribution whose numbers are kept.
        base: Its name, which the index keeps.
        options: Its options, which the index keeps.
        max_tokens: See there.
    """
    texts = _training_texts(network, datamodule)
    if not is_plain(options):
        raise InputError(f"The options of {base} must be plain values, because the index keeps them: {options}.")
    reader = Reader(network, layer)
    counted = (~np.asarray(texts.special)).astype(np.int64)
    bounds = np.concatenate([np.zeros(1, dtype=np.int64), counted.cumsum()])[np.asarray(texts.offsets)]
    device = next(network.parameters()).device
    size = reader.read(texts[[0]].to(device)).vectors.shape[1]
    description = Description(
        fingerprint=fingerprint(network),
        data=_digest(texts),
        layer=layer,
        base=base,
        options=options,
        texts=len(texts),
        tokens=int(bounds[-1]),
        size=size,
        pairs=PAIRS,
    )
    if _complete(folder, description):
        (folder / _PROGRESS).unlink(missing_ok=True)  # of a process that was killed when it had just finished
        return
    arrays, done = _begun(folder, description)
    arrays["offsets"][:] = bounds
    with Progress(console=Console(stderr=True), transient=True, disable=len(texts) < _LONG, expand=True) as progress:
        bar = progress.add_task("Reading the training texts", total=len(texts), completed=done)
        for number, rows in enumerate(_batches(np.asarray(texts.lengths), max_tokens, done)):
            batch = texts[rows.tolist()].to(device)
            _keep(arrays, batch, *reader.read_along(method, batch))
            done += len(rows)
            if (number + 1) % _SAVED_EVERY == 0:
                _save(folder, description, arrays, done)
            progress.advance(bar, len(rows))
    vectors = torch.from_numpy(arrays["vectors"])
    arrays["norms"][:] = vectors.square().sum(dim=1).numpy()
    arrays["distances"][:] = _pair_distances(vectors)
    _save(folder, description, arrays, done)
    write_text(folder / DESCRIPTION, json.dumps({"version": VERSION, **asdict(description)}, indent=1))
    (folder / _PROGRESS).unlink()


def _training_texts(network: AttentionNetwork, datamodule: AttentionDataModule) -> EncodedDataset:
    from lightning_attn.data.encoded import EncodedDataset

    if network.schema.vocabulary_size is None:
        raise InputError("An index of neighbours is made of texts, and the network reads features of instances.")
    check_same_data(network.schema, datamodule.schema)
    texts = datamodule.dataset("train")
    if not isinstance(texts, EncodedDataset):
        raise InputError(f"An index of neighbours is made of texts, and {type(datamodule).__name__} has none.")
    if len(texts) < 2:
        raise InputError(f"An index of neighbours needs at least two training texts, and the data have {len(texts)}.")
    return texts


def _digest(texts: EncodedDataset) -> str:
    state = hashlib.sha256()
    for array in (texts.ids, texts.offsets, texts.special, texts.query_ids, texts.query_offsets):
        if array is not None:
            state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _batches(lengths: Array, max_tokens: int, done: int = 0) -> list[Array]:
    """Rows in batches of about equal lengths, each of at most ``max_tokens`` positions; the longest first.

    The order of the rows depends on their lengths alone, so that the first ``done`` of them, which are left out, are
    the same whatever ``max_tokens`` is.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], done
    while start < len(order):
        count = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + count])
        start += count
    return batches


def _keep(arrays: Mapping[str, Array], batch: Batch, attributions: Tensor, reading: Reading) -> None:
    rows = batch.index.cpu().numpy()
    arrays["vectors"][rows] = reading.vectors.cpu().numpy()
    arrays["predicted"][rows] = reading.logits.argmax(dim=-1).cpu().numpy()
    arrays["digests"][rows] = text_digests(batch).cpu().numpy()
    inner = batch.inner
    # Where each token stands in the flat arrays: its text's start, and its rank among the tokens that are not special.
    starts = torch.from_numpy(arrays["offsets"][rows]).to(inner.device)
    places = (starts[:, None] + inner.long().cumsum(dim=1) - 1)[inner].cpu().numpy()
    arrays["tokens"][places] = batch.inputs[inner].cpu().numpy()
    arrays["scores"][places] = attributions[inner].cpu().numpy()


def _pair_distances(vectors: Tensor) -> Array:
    """Distances of random pairs of different texts, ascending."""
    generator = np.random.default_rng(_SEED)
    first = generator.integers(len(vectors), size=PAIRS)
    second = (first + generator.integers(1, len(vectors), size=PAIRS)) % len(vectors)
    parts = [  # gathered in parts: vectors may be larger than memory
        (vectors[torch.from_numpy(one)] - vectors[torch.from_numpy(other)]).norm(dim=1)
        for one, other in zip(np.array_split(first, 8), np.array_split(second, 8), strict=True)
    ]
    return torch.cat(parts).sort().values.numpy()


def _complete(folder: Path, description: Description) -> bool:
    """Whether the index is there, with all of its files; one that has lost some is begun anew."""
    file = folder / DESCRIPTION
    if not file.is_file():
        return False
    if read_description(folder) != description:
        raise InputError(
            f"{folder} holds an index of another network, other texts or other settings: give another folder."
        )
    if all(_is_whole(folder, description, name) for name in ARRAYS):
        return True
    _write_progress(folder, description, 0)
    file.unlink()
    return False


def _begun(folder: Path, description: Description) -> tuple[dict[str, Array], int]:
    """The arrays of a build, and how many texts are in them; new ones if there are none yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}.") from error
    done = _read_progress(folder, description)
    if done is None:
        own = {name for file in (DESCRIPTION, _PROGRESS) for name in (file, f".{file}", f"{file}.part")}
        if any(path.name not in own for path in folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no index of neighbours: give another folder.")
    if not done or not all(_is_whole(folder, description, name) for name in ARRAYS):
        done = 0
        _write_progress(folder, description, done)
        for name in ARRAYS:
            _write_zeros(folder, description, name)
    return {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in ARRAYS}, done


def _is_whole(folder: Path, description: Description, name: str) -> bool:
    """Whether the file of an array is there, and has its type, shape and length."""
    try:
        array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return False
    return bool(array.dtype == np.dtype(ARRAYS[name][0]) and array.shape == description.shape(name))


def _write_zeros(folder: Path, description: Description, name: str) -> None:
    """Make the file of an array in its full size.

    Zeros are written because a file with holes takes its space later: a disk that is full by then would end the
    process by a signal when it writes into the map, and not by an error that can be told.
    """
    kind, shape = np.dtype(ARRAYS[name][0]), description.shape(name)
    with replacing(folder / f"{name}.npy") as unfinished, unfinished.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        left = math.prod(shape) * kind.itemsize
        while left:
            left -= file.write(bytes(min(left, _ZEROS)))


def _read_progress(folder: Path, description: Description) -> int | None:
    """How many texts an unfinished build has read; None where there is none.

    Raises:
        InputError: It is a build of something else, or its file is damaged.
    """
    file = folder / _PROGRESS
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text())
        begun = values["description"]
        # 0.1.0 counted batches, whose size may be another today: its builds begin anew.
        done = values["rows"] if values.get("version") == VERSION else 0
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: delete {folder} to begin anew.") from error
    if begun != json.loads(json.dumps(asdict(description))):
        raise InputError(
            f"{folder} holds an unfinished index of another network, other texts or other settings: give another "
            "folder, or delete it."
        )
    if type(done) is not int or not 0 <= done <= description.texts:
        raise InputError(f"{file} is damaged: delete {folder} to begin anew.")
    return done


def _save(folder: Path, description: Description, arrays: Mapping[str, Array], done: int) -> None:
    """Bring everything to disk first, then note that it is there."""
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    _write_progress(folder, description, done)


def _write_progress(folder: Path, description: Description, done: int) -> None:
    progress = {"version": VERSION, "description": asdict(description), "rows": done}
    write_text(folder / _PROGRESS, json.dumps(progress, indent=1))
