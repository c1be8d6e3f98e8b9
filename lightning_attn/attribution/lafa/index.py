"""The training texts as one network sees them, on disk: `NeighbourIndex`."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_attn.attribution.base import get
from lightning_attn.attribution.lafa.build import ARRAYS, Description, build_index, read_description
from lightning_attn.attribution.lafa.reading import fingerprint
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork

if TYPE_CHECKING:  # data bring Lightning along, which explaining does without
    from lightning_attn.data.base import AttentionDataModule

_MOST_TOKENS = 1 << 26  # ids; vocabularies have some 300,000


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
        predicted: Class that the network predicts and the attributions explain, shape ``(N,)``.
        offsets: Text i has the tokens ``offsets[i]`` to ``offsets[i + 1]``, shape ``(N + 1,)``.
        tokens: Ids of the tokens of all texts, special ones left out, shape ``(T,)``.
        scores: Attribution of each of them, shape ``(T,)``.
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
            base: Name of the attribution whose numbers are kept.
            options: Its options, plain values.
            max_tokens: Bound on positions in one pass, padding included.

        Raises:
            InputError: There are fewer than two training texts, or no texts at all; data and network do not fit; the
                layer or the attribution is not there; the folder holds something else.
        """
        kept, folder = dict(options or {}), Path(path).expanduser()
        build_index(network, datamodule, folder, layer, get(base, **kept), base, kept, max_tokens)
        return cls.open(folder)

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
        """Mean attribution of every token id over all training texts, 0 for ids that they lack, shape ``(V,)``."""
        if self._lexicon is None:
            ids = self.tokens.long()
            if len(ids) and (ids.min() < 0 or ids.max() >= _MOST_TOKENS):
                raise InputError(
                    f"{self.path / 'tokens.npy'} is damaged, it holds ids that no token has: make the index again with "
                    "lightning index."
                )
            counts = torch.bincount(ids)
            sums = torch.zeros(len(counts), dtype=torch.float64, device=ids.device)
            sums.index_add_(0, ids, self.scores.double())
            self._lexicon = (sums / counts.clamp(min=1)).float()
        return self._lexicon

    def lengths(self, rows: Tensor) -> Tensor:
        """Number of tokens of the texts at ``rows``, same shape."""
        return self.offsets[rows + 1] - self.offsets[rows]


def _open(folder: Path, description: Description, name: str) -> Tensor:
    file = folder / f"{name}.npy"
    kind, shape = ARRAYS[name][0], description.shape(name)
    if not file.is_file():
        raise InputError(f"The index {folder} has lost its file {file.name}: make it again with lightning index.")
    try:
        # Copy on write: torch wants memory that it may write to, and the file stays as it is.
        array = np.load(file, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # numpy parses the header of a damaged file as Python, which fails in as many ways
        raise InputError(f"{file} is truncated or damaged: make the index again with lightning index.") from error
    if array.shape != shape or array.dtype != np.dtype(kind):
        raise InputError(
            f"{file} holds {array.dtype} of shape {array.shape} where the index has {kind} of shape {shape}: make it "
            "again with lightning index."
        )
    return torch.from_numpy(array)
