"""Random draws of a mitigation that a resumed run goes on with: `DrawingMitigation`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lightning_attn.mitigations.base import Mitigation
from lightning_attn.mitigations.random_attention import seeded


class DrawingMitigation(Mitigation):
    """A mitigation that draws at random while training: each draw has a number, and its own seed.

    One seed a draw instead of a running generator: a resumed run then draws what an unbroken one would have.

    Args:
        seed: Seed of the draws; processes draw differently.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.draws = 0

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        """What is drawn inside is the next draw; the global random state stays as it was."""
        self.draws += 1
        with seeded(hash((self.seed, process_rank(), self.draws)) % 2**63, device):
            yield

    def get_extra_state(self) -> dict[str, int]:
        """Number of draws, so that a resumed run goes on where the checkpoint was written."""
        return {"draws": self.draws}

    def set_extra_state(self, state: Any) -> None:
        """Restore :meth:`get_extra_state`."""
        self.draws = state["draws"]


def process_rank() -> int:
    """Number of this process among those that train together, 0 for a single one."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
