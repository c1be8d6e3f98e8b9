"""The training texts as one network sees them, on disk: `NeighbourIndex`."""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_attn.attribution.lafa.fingerprint import fingerprint
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork

if TYPE_CHECKING:  # building stands above reading: it needs data and attributions
    from lightning_attn.data.base import AttentionDataModule

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
        base: Name of the attribution whose scores are kept.
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


@dataclass
class NeighbourIndex:
    """A vector, and the importance of every token, for each of N training texts; the texts that LAFA borrows from.

    Only training texts are in it. The arrays are memory-mapped from ``.npy`` files; nothing in them is executed. An
    index belongs to the network that it was built with, to the last weight.

    Attributes:
        path: The folder.
        description: What it was made of.
        vectors: Shape ``(N, D)``, float32.
        norms: ``||vector||^2``, shape ``(N,)``, float32.
        digests: See :func:`text_digests`, shape ``(N,)``.
        predicted: Class that the network predicts and the scores explain, shape ``(N,)``.
        offsets: Text i has the tokens ``offsets[i]`` to ``offsets[i + 1]``, shape ``(N + 1,)``.
        tokens: Ids of the tokens of all texts, special ones left out, shape ``(T,)``.
        scores: Base score of each of them, shape ``(T,)``.
        distances: Between random pairs of texts, ascending, shape ``(P,)``.
    """

    path: Path
    description: Description
    vectors: Tensor
    norms: Tensor
    digests: Tensor
    predicted: Tensor
    offsets: Tensor
    tokens: Tensor
    scores: Tensor
    distances: Tensor
    _checked: tuple[weakref.ref[AttentionNetwork], int] | None = field(default=None, init=False, repr=False)
    _lexicon: Tensor | None = field(default=None, init=False, repr=False)
    _copy: NeighbourIndex | None = field(default=None, init=False, repr=False)

    @classmethod
    def build(
        cls,
        network: AttentionNetwork,
        datamodule: AttentionDataModule,
        path: str | Path,
        layer: str = "keys",
        base: str = "simple_gradient",
        options: dict[str, Any] | None = None,
        max_tokens: int = 16384,
    ) -> NeighbourIndex:
        """Read all training texts once with the network, and write the index.

        A build that was interrupted goes on where it stopped when it is called again; one that is complete is opened.

        Args:
            network: Built, trained.
            datamodule: Prepared and set up; its ``train`` split is read, with the vocabulary of the network.
            path: Folder, made if it is not there.
            layer: Whose states the vectors are, see :class:`Reader`.
            base: Name of the attribution whose scores are kept.
            options: Its options, plain values.
            max_tokens: Bound on positions in one pass, padding included.

        Raises:
            InputError: There are fewer than two training texts, or no texts at all; data and network do not fit; the
                layer or the attribution is not there; the folder holds something else.
        """
        from lightning_attn.attribution.lafa.build import build_index

        build_index(network, datamodule, Path(path).expanduser(), layer, base, dict(options or {}), max_tokens)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> NeighbourIndex:
        """Open what :meth:`build` wrote.

        Raises:
            InputError: There is no index, or it is unfinished, truncated or of another version.
        """
        folder = Path(path).expanduser()
        description = read_description(folder)
        return cls(folder, description, **{name: _open(folder, description, name) for name in ARRAYS})

    def __len__(self) -> int:
        """Number of texts N."""
        return self.description.texts

    def check(self, network: AttentionNetwork) -> None:
        """See whether this is the index of a network; the same network, unchanged, is looked at once.

        Raises:
            InputError: It is the index of another network, or of the same one before it was trained further.
        """
        state = sum(parameter._version for parameter in network.parameters())
        if self._checked is not None and self._checked[0]() is network and self._checked[1] == state:
            return
        if fingerprint(network) != self.description.fingerprint:
            raise InputError(
                f"The index {self.path} belongs to another checkpoint: make one for this network with lightning index."
            )
        self._checked = weakref.ref(network), state

    def to(self, device: torch.device | str) -> NeighbourIndex:
        """The index with its arrays on a device; itself if they are there, and copied only once."""
        if self.vectors.device == torch.device(device):
            return self
        if self._copy is None or self._copy.vectors.device != torch.device(device):
            self._copy = replace(self, **{name: getattr(self, name).to(device) for name in ARRAYS})
        return self._copy

    def cutoff(self, quantile: float | None) -> float:
        """Distance below which a share ``quantile`` of random pairs of texts lies; infinite for None.

        Raises:
            InputError: ``quantile`` is not in (0, 1].
        """
        if quantile is None:
            return float("inf")
        if not 0 < quantile <= 1:
            raise InputError(f"The quantile of the cut-off must be in (0, 1], not {quantile}.")
        return float(torch.quantile(self.distances, quantile))

    @property
    def lexicon(self) -> Tensor:
        """Mean score of every token id over all training texts, 0 for ids that they do not have, shape ``(V,)``."""
        if self._lexicon is None:
            ids = self.tokens.long()
            counts = torch.bincount(ids)
            sums = torch.zeros(len(counts), dtype=torch.float64, device=ids.device)
            sums.index_add_(0, ids, self.scores.double())
            self._lexicon = (sums / counts.clamp(min=1)).float()
        return self._lexicon

    def lengths(self, rows: Tensor) -> Tensor:
        """Number of tokens of the texts at ``rows``, same shape."""
        return self.offsets[rows + 1] - self.offsets[rows]


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
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: make the index again with lightning index.") from error
    if version != VERSION:
        raise InputError(f"The index {folder} has version {version}, and {VERSION} is needed: make it again.")
    return description


def _open(folder: Path, description: Description, name: str) -> Tensor:
    file = folder / f"{name}.npy"
    kind, shape = ARRAYS[name][0], description.shape(name)
    if not file.is_file():
        raise InputError(f"The index {folder} has lost its file {file.name}: make it again with lightning index.")
    try:
        # Copy on write: torch wants memory that it may write to, and the file stays as it is.
        array = np.load(file, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{file} is truncated or damaged: make the index again with lightning index.") from error
    if array.shape != shape or array.dtype != np.dtype(kind):
        raise InputError(
            f"{file} holds {array.dtype} of shape {array.shape} where the index has {kind} of shape {shape}: make it "
            "again with lightning index."
        )
    return torch.from_numpy(array)
