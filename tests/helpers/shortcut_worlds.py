"""Selectors in a synthetic world, for which the information in a mask is known exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_attn.types import Batch, DataSchema

LENGTH, NOISE = 12, 6
#: Ids: 0 padding, 1 unknown, 2 to 7 noise, then words that say a label, of each of two kinds, and two switches.
WORD, SWITCH = 2 + NOISE, 2 + NOISE + 4
SCHEMA = DataSchema(num_classes=2, vocabulary_size=SWITCH + 2)

World = tuple[Batch, Tensor]


def _noise(count: int, generator: torch.Generator) -> Batch:
    valid = torch.ones(count, LENGTH, dtype=torch.bool)
    return Batch(
        inputs=torch.randint(2, 2 + NOISE, (count, LENGTH), generator=generator),
        valid=valid,
        special=~valid,
        target=torch.randint(0, 2, (count,), generator=generator),
        index=torch.arange(count),
    )


def _put(batch: Batch, words: Tensor, generator: torch.Generator) -> Tensor:
    """Write W words ``(B, W)`` at random places of each text, and return the places."""
    places = torch.rand(len(batch), LENGTH, generator=generator).argsort(dim=1)[:, : words.shape[1]]
    batch.inputs.scatter_(1, places, words)
    return places


def _select(places: Tensor) -> Tensor:
    """Weight 1 / W on each of W places ``(B, W)``."""
    return torch.zeros(len(places), LENGTH).scatter_(1, places, 1 / places.shape[1])


def honest(count: int, generator: torch.Generator) -> World:
    """Selects the one word that says the label, wherever it stands: the mask tells nothing, its content everything."""
    batch = _noise(count, generator)
    return batch, _select(_put(batch, WORD + batch.target[:, None], generator))


def by_place(count: int, generator: torch.Generator) -> World:
    """Selects noise, at the first place for one label and at the last for the other."""
    batch = _noise(count, generator)
    return batch, _select((LENGTH - 1) * batch.target[:, None])


def by_number(count: int, generator: torch.Generator) -> World:
    """Selects noise at random places, one for one label and three for the other: encodes by design, without places."""
    batch = _noise(count, generator)
    places = torch.rand(count, LENGTH, generator=generator).argsort(dim=1)
    return batch, torch.where(batch.target[:, None] == 0, _select(places[:, :1]), _select(places[:, :3]))


def marginal(count: int, generator: torch.Generator) -> World:
    """A switch says which of two words decides; the selector reveals that word and hides the switch.

    The mask alone tells nothing of the label, and neither is it needed to guess right; but which word it chose makes
    certain what the word alone makes likely: 3 to 1. Encoding is then worth log2(4/3) = 0.415 bits.
    """
    batch = _noise(count, generator)
    says = torch.randint(0, 2, (count, 2), generator=generator)
    switch = torch.randint(0, 2, (count, 1), generator=generator)
    batch.target.copy_(says.gather(1, switch).squeeze(1))
    kinds = torch.stack([WORD + says[:, 0], WORD + 2 + says[:, 1]], dim=1)
    places = _put(batch, torch.cat([kinds, SWITCH + switch], dim=1), generator)
    return batch, _select(places.gather(1, switch))


def idle(count: int, generator: torch.Generator) -> World:
    """Selects a place at random, in texts that say their label somewhere."""
    batch = _noise(count, generator)
    _put(batch, WORD + batch.target[:, None], generator)
    return batch, _select(torch.randint(0, LENGTH, (count, 1), generator=generator))


def texts(
    count: int, generator: torch.Generator, length: int, kinds: int, encodes: bool, noise: int = 100
) -> tuple[Batch, Tensor, DataSchema]:
    """Texts of noise and one word, of ``kinds`` that say each label; the mask is on it, or tells the label by place."""
    valid = torch.ones(count, length, dtype=torch.bool)
    target = torch.randint(0, 2, (count,), generator=generator)
    inputs = torch.randint(2, 2 + noise, (count, length), generator=generator)
    word = 2 + noise + kinds * target + torch.randint(0, kinds, (count,), generator=generator)
    place = torch.randint(0, length, (count, 1), generator=generator)
    inputs.scatter_(1, place, word[:, None])
    mask = torch.zeros(count, length).scatter_(1, (length - 1) * target[:, None] if encodes else place, 1.0)
    schema = DataSchema(num_classes=2, vocabulary_size=2 + noise + 2 * kinds)
    return Batch(inputs, valid, ~valid, target, torch.arange(count)), mask, schema


WORLDS: dict[str, Callable[[int, torch.Generator], World]] = {
    world.__name__: world for world in (honest, by_place, by_number, marginal, idle)
}


def split(world: World, size: int = 64) -> tuple[list[Batch], list[Tensor]]:
    """The world in batches."""
    batch, mask = world
    rows = torch.arange(len(batch)).split(size)
    return [batch.select(part) for part in rows], [mask[part] for part in rows]
