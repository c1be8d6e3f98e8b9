"""Random numbers that belong to an example, the same in any batch and on any device; draws under a given seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which PyTorch lacks."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """The int64 with the bits of an unsigned 64-bit constant."""
    return x - (1 << 64) if x >= 1 << 63 else x


_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def mix(x: Tensor) -> Tensor:
    """SplitMix64: int64 of any shape to int64 that look random (Steele, Lea and Flood, OOPSLA 2014)."""
    x = x + _STEP
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def example_keys(index: Tensor, seed: int = 0) -> Tensor:
    """One int64 per example that looks random and depends on its ``index`` ``(B,)`` and the seed alone."""
    return mix(mix(index) + mix(index.new_tensor(seed)))


def uniform(index: Tensor, length: int, seed: int = 0) -> Tensor:
    """Uniform numbers in (0, 1), one for each position of each example.

    Args:
        index: ``Batch.index``, shape ``(B,)``, int64.
        length: L; number i of an example does not depend on it.
        seed: Another seed gives numbers that are independent.

    Returns:
        Shape ``(B, L)``, float32, never exactly 0 or 1.
    """
    bits = mix(example_keys(index, seed)[:, None] + mix(torch.arange(length, device=index.device)))
    # 23 bits plus one half: every value and its complement are exact in float32 and inside (0, 1).
    return (_shift(bits, 41).to(torch.float32) + 0.5) * (1 / 2**23)


def normal(index: Tensor, length: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, shape ``(B, L)``, float32; arguments as in :func:`uniform`."""
    return torch.special.ndtri(uniform(index, length, seed))  # type: ignore[no-any-return]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws inside depend on ``seed`` alone, and the global random state outside is left as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
