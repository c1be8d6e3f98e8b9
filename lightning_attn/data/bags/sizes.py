"""How many instances a bag has: `BagSize`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from lightning_attn.data.encoded import Array
from lightning_attn.errors import InputError


class BagSize(ABC):
    """Draws the sizes of bags, whatever their labels.

    Attributes:
        least: The smallest size there can be.
    """

    least: int

    @abstractmethod
    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Sizes of ``count`` bags, shape ``(count,)``, int64, each at least :attr:`least`."""


class FixedSize(BagSize):
    """All bags are of one size.

    Args:
        instances: That size, at least 1.

    Raises:
        InputError: It is below 1.
    """

    def __init__(self, instances: int = 10) -> None:
        if instances < 1:
            raise InputError(f"FixedSize needs instances of at least 1, not {instances}.")
        self.least = instances

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """The same for all."""
        return np.full(count, self.least, dtype=np.int64)


class NormalSize(BagSize):
    """Sizes are normal numbers, rounded, and never below the least (Ilse et al. 2018: mean 10, standard deviation 2).

    Args:
        mean: Mean size, at least ``least``.
        sd: Standard deviation, 0 or more.
        least: Smaller sizes become this, at least 1.

    Raises:
        InputError: An argument is out of its range.
    """

    def __init__(self, mean: float = 10.0, sd: float = 2.0, least: int = 4) -> None:
        if least < 1 or sd < 0 or mean < least:
            raise InputError(
                f"NormalSize needs least >= 1, sd >= 0 and mean >= least, not least {least}, sd {sd:g}, mean {mean:g}."
            )
        self.mean = mean
        self.sd = sd
        self.least = least

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Rounded to the nearest whole number."""
        sizes = np.rint(generator.normal(self.mean, self.sd, size=count)).astype(np.int64)
        return np.maximum(sizes, self.least)
