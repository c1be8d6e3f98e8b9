"""How alike two words are, for LAFA: `Kernel` and its kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.ops.registry import Registry


@dataclass
class Words:
    """Words of B texts, n places each.

    Attributes:
        ids: Token ids, shape ``(B, n)``, int64; -1 where a text has fewer words.
        vectors: Their word embeddings, shape ``(B, n, E)``; anything where there is no word.
    """

    ids: Tensor
    vectors: Tensor

    def select(self, rows: slice) -> Words:
        """The words of some of the texts."""
        return Words(self.ids[rows], self.vectors[rows])


class Kernel(ABC):
    """Similarity of words by their word embeddings, from Zhang et al., NAACL 2022, https://arxiv.org/abs/2204.10893."""

    @abstractmethod
    def __call__(self, words: Words, others: Words) -> Tensor:
        """Similarity of each of n words to each of m others of the same text, shape ``(B, n, m)``."""


class Rbf(Kernel):
    """``exp(-||a - b||_2 / l^2)``, in (0, 1]; the norm is not squared in the paper either.

    Args:
        length: l, above 0; 2 in the paper.

    Raises:
        InputError: ``length`` is not above 0.
    """

    def __init__(self, length: float = 2.0) -> None:
        self.length = _positive(self, "length", length)

    @override
    def __call__(self, words: Words, others: Words) -> Tensor:
        return torch.exp(-_distances(words, others) / self.length**2)


class Laplacian(Kernel):
    """``exp(-||a - b||_1 / l^2)``, in (0, 1].

    Args:
        length: l, above 0; 2 in the paper.

    Raises:
        InputError: ``length`` is not above 0.
    """

    def __init__(self, length: float = 2.0) -> None:
        self.length = _positive(self, "length", length)

    @override
    def __call__(self, words: Words, others: Words) -> Tensor:
        return torch.exp(-torch.cdist(words.vectors, others.vectors, p=1) / self.length**2)


class Cubic(Kernel):
    """``(gamma a.b + c0)^3``: unbounded, and negative for words that point away from each other.

    Args:
        gamma: 7 in the paper.
        offset: c0; 0 in the paper.
    """

    def __init__(self, gamma: float = 7.0, offset: float = 0.0) -> None:
        self.gamma = gamma
        self.offset = offset

    @override
    def __call__(self, words: Words, others: Words) -> Tensor:
        return (self.gamma * words.vectors @ others.vectors.transpose(1, 2) + self.offset) ** 3


class Cosine(Kernel):
    """Cosine of the angle, in [-1, 1]; 0 where a vector is zero."""

    @override
    def __call__(self, words: Words, others: Words) -> Tensor:
        return F.normalize(words.vectors, dim=-1) @ F.normalize(others.vectors, dim=-1).transpose(1, 2)


class InverseClippedDistance(Kernel):
    """``1 / clip(||a - b||_2, low, high)``, in [1/high, 1/low].

    Args:
        low: Above 0; 0.3 in the paper.
        high: At least ``low``; 3 in the paper.

    Raises:
        InputError: The bounds are not in order, or ``low`` is not above 0.
    """

    def __init__(self, low: float = 0.3, high: float = 3.0) -> None:
        self.low = _positive(self, "low", low)
        self.high = high
        if high < low:
            raise InputError(f"InverseClippedDistance needs high of at least low, not {high} with low {low}.")

    @override
    def __call__(self, words: Words, others: Words) -> Tensor:
        return _distances(words, others).clamp(self.low, self.high).reciprocal()


class Indicator(Kernel):
    """1 for the same token, 0 for any other: what the neighbours say of this very word."""

    @override
    def __call__(self, words: Words, others: Words) -> Tensor:
        return (words.ids[:, :, None] == others.ids[:, None]).to(words.vectors)


#: By the name that the command line takes.
KERNELS: Registry[type[Kernel]] = Registry(
    "kernel",
    "kernels",
    {
        "rbf": Rbf,
        "cubic": Cubic,
        "cosine": Cosine,
        "laplacian": Laplacian,
        "inverse_clipped_distance": InverseClippedDistance,
        "indicator": Indicator,
    },
)


def get_kernel(name: str) -> Kernel:
    """The kernel of a name, with the parameters of the paper.

    Raises:
        InputError: There is none of that name.
    """
    return KERNELS[name]()


def _distances(words: Words, others: Words) -> Tensor:
    """``||a - b||_2``, shape ``(B, n, m)``; exactly 0 for the same token, which a product of matrices misses."""
    own, theirs = words.vectors.square().sum(dim=-1), others.vectors.square().sum(dim=-1)
    squares = torch.baddbmm(theirs[:, None], words.vectors, others.vectors.transpose(1, 2), alpha=-2)
    squares = squares.add_(own[..., None]).clamp_(min=0)
    return squares.sqrt_().masked_fill_(words.ids[:, :, None] == others.ids[:, None], 0.0)


def _positive(kernel: Kernel, name: str, value: float) -> float:
    if value <= 0:
        raise InputError(f"{type(kernel).__name__} needs {name} above 0, not {value}.")
    return value
