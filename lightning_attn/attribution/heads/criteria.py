"""Which attention heads are important: `Syntactic`, `Positional`, and `random_heads` as their control."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_attn.attribution.heads.statistics import DIRECTIONS, HeadStatistics
from lightning_attn.errors import InputError

#: Shares are quotients of counts: what a limit is reached by exactly should not depend on how they are rounded.
_ROUNDING = 1e-9
#: Before the name of a relation, by direction.
_SIGNS = {"to_head": "", "to_dependent": "< "}


class Criterion(ABC):
    """Makes an attention head important. Several criteria are united."""

    #: What it is called on the command line, in files and in pictures.
    name: str
    #: What :meth:`strength` is.
    meaning: str

    @property
    @abstractmethod
    def limit(self) -> float:
        """The strength that an important attention head exceeds."""

    @abstractmethod
    def strength(self, statistics: HeadStatistics) -> Tensor:
        """How well each attention head does, shape ``(N, M)``."""

    @abstractmethod
    def marks(self, statistics: HeadStatistics) -> dict[str, Tensor]:
        """The important attention heads, shape ``(N, M)``, bool, by the reason; one may have several."""


class Syntactic(Criterion):
    """Looks from a word to the one that it depends on, more often than any fixed offset would hit.

    ``accuracy_k > baseline_k + margin`` for any relation k. Source: Mask-LRP, Findings of EACL 2024, and
    its code; the baseline and the margin are **reconstructed**, after Voita et al., ACL 2019.

    Args:
        margin: In [0, 1).
        direction: ``to_head`` watches the dependent (Mask-LRP), ``to_dependent`` the word it depends on; with
            ``either`` one of them is enough, each against its own baseline (Voita et al.).
    """

    name = "syntactic"
    meaning = "hits above those of an offset"

    def __init__(self, margin: float = 0.1, direction: str = "to_head") -> None:
        if not 0 <= margin < 1:
            raise InputError(f"The margin of syntactic attention heads must be in [0, 1), not {margin:g}.")
        if direction not in (*DIRECTIONS, "either"):
            raise InputError(f"There is no direction {direction!r}; known: {', '.join(DIRECTIONS)}, either.")
        self.margin = margin
        self.direction = direction

    @property
    def limit(self) -> float:
        """The margin."""
        return self.margin

    @property
    def directions(self) -> tuple[str, ...]:
        """Which of :data:`DIRECTIONS` count."""
        return DIRECTIONS if self.direction == "either" else (self.direction,)

    def strength(self, statistics: HeadStatistics) -> Tensor:
        """How far the best relation is above its baseline, in [-1, 1]; -1 where no relation has a dependency."""
        numbers = [DIRECTIONS.index(direction) for direction in self.directions]
        return self._above(statistics)[numbers].flatten(0, 1).nan_to_num(-1.0).amax(dim=0)

    def marks(self, statistics: HeadStatistics) -> dict[str, Tensor]:
        """By relation; ``< nsubj`` is the direction from the word that others depend on."""
        above = self._above(statistics) > self.margin + _ROUNDING
        return {
            _SIGNS[direction] + relation: above[DIRECTIONS.index(direction), number]
            for direction in self.directions
            for number, relation in enumerate(statistics.relations)
        }

    def _above(self, statistics: HeadStatistics) -> Tensor:
        """Accuracy above the baseline, shape ``(2, R, N, M)``, NaN without a dependency."""
        return statistics.accuracy - statistics.baseline[..., None, None]


class Positional(Criterion):
    """Looks so many tokens ahead or back, always the same number, in most cases.

    One offset has a frequency above ``share``; 0, the token itself, and far offsets count too. Source:
    Mask-LRP, Findings of EACL 2024, and its code.

    Args:
        share: In (0, 1).
    """

    name = "positional"
    meaning = "share of the commonest offset"

    def __init__(self, share: float = 0.8) -> None:
        if not 0 < share < 1:
            raise InputError(f"The offset share of positional attention heads must be in (0, 1), not {share:g}.")
        self.share = share

    @property
    def limit(self) -> float:
        """The share."""
        return self.share

    def strength(self, statistics: HeadStatistics) -> Tensor:
        """Share of the commonest offset, in [0, 1]."""
        return statistics.offset_share

    def marks(self, statistics: HeadStatistics) -> dict[str, Tensor]:
        """By offset: ``-1`` is the token before, ``+1`` the next one."""
        often = statistics.offset_share > self.share + _ROUNDING
        offsets = sorted(set(statistics.offset[often].tolist()), key=lambda offset: (abs(offset), offset))
        return {f"{offset:+d}" if offset else "0": often & (statistics.offset == offset) for offset in offsets}


def important_heads(statistics: HeadStatistics, criteria: Sequence[Criterion]) -> list[list[int]]:
    """The attention heads of each layer, the lowest first, that any of the criteria makes important.

    Raises:
        InputError: There is none.
    """
    important = torch.zeros_like(statistics.offset, dtype=torch.bool)
    for criterion in criteria:
        for mask in criterion.marks(statistics).values():
            important |= mask
    if not important.any():
        nearest = " and ".join(_nearest(criterion, statistics) for criterion in criteria)
        raise InputError(
            f"No attention head of the model is important: {nearest}; ask for less, or for other criteria."
        )
    return [layer.nonzero().squeeze(-1).tolist() for layer in important]


def _nearest(criterion: Criterion, statistics: HeadStatistics) -> str:
    strength = criterion.strength(statistics)
    layer, head = divmod(int(strength.argmax()), strength.shape[1])
    return (
        f"the most {criterion.name} one, number {head} of layer {layer}, reaches {strength.max():.2f} "
        f"({criterion.meaning}) where more than {criterion.limit:g} is needed"
    )


def reasons(statistics: HeadStatistics, criteria: Sequence[Criterion]) -> Mapping[tuple[int, int], list[str]]:
    """Why each important attention head, as (layer, number), is one: criterion and mark, such as ``positional -1``."""
    by_head: dict[tuple[int, int], list[str]] = {}
    for criterion in criteria:
        for mark, mask in criterion.marks(statistics).items():
            for layer, head in mask.nonzero().tolist():
                by_head.setdefault((layer, head), []).append(f"{criterion.name} {mark}")
    return by_head


def random_heads(heads: Sequence[Sequence[int]], heads_per_layer: int, seed: int = 0) -> list[list[int]]:
    """The control: as many attention heads in each layer as there are important ones, drawn from all of the layer.

    Args:
        heads: Important attention heads of each layer.
        heads_per_layer: How many there are.
        seed: Of the draw. Use several: one draw says little.
    """
    draw = random.Random(seed)
    return [sorted(draw.sample(range(heads_per_layer), len(set(layer)))) for layer in heads]
