"""The examples that a callback looks at: drawn at random, but the same ones every epoch: `ExampleSample`."""

from __future__ import annotations

import torch
from pytorch_lightning.strategies import Strategy
from torch import Tensor

from lightning_attn.ops.randomness import mix
from lightning_attn.types import Batch

_NEVER = torch.iinfo(torch.int64).max


class ExampleSample:
    """Keeps the ``size`` examples of an evaluation epoch whose rows come first in a random order of all rows.

    The order is a hash of ``Batch.index``: it depends on neither the length of the data set, nor the order of the
    batches, nor the number of processes, and a file that is sorted by class gives all its classes. Processes talk
    once an epoch, in :meth:`collected`.

    Args:
        size: Examples to keep, on all processes together; None keeps all.
        seed: Another seed, other examples.
    """

    def __init__(self, size: int | None, seed: int = 0) -> None:
        self.size = size
        self.seed = seed
        self._parts: list[tuple[Batch, Tensor]] = []
        self._keys: Tensor | None = None

    def clear(self) -> None:
        """Forget the examples of the last epoch."""
        self._parts, self._keys = [], None

    def add(self, batch: Batch) -> None:
        """Keep those rows of a batch that may turn out to be chosen; a row that is there already is not kept again."""
        # Normal tensors, which may be differentiated later, also where Lightning evaluates in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            keys = mix(mix(batch.index.clone()) + mix(torch.tensor(self.seed, device=batch.device)))
            known = keys.new_empty(0) if self._keys is None else self._keys
            new = ~torch.isin(keys, known)
            if self.size is not None and len(known) >= self.size:
                new &= keys < known[-1]
            rows = new.nonzero().squeeze(-1)
            if len(rows):
                self._parts.append((batch.apply(torch.clone).select(rows), keys[rows]))
                self._keys = torch.unique(torch.cat([known, keys[rows]]))[: self.size]

    def collected(self, strategy: Strategy | None = None) -> list[Batch]:
        """The chosen examples of this process; every process must call it.

        Args:
            strategy: The Trainer's; None where this process is the only one.

        Returns:
            What was chosen of each batch that was added, padded, but without columns that are padding only. How
            examples are grouped does not depend on the number of processes if the batches do not: floating-point
            results are then the same to the last bit.
        """
        last = _NEVER if self.size is None else self._last_key(strategy)
        chosen = [_trimmed(part.select((keys <= last).nonzero().squeeze(-1)).padded()) for part, keys in self._parts]
        return [part for part in chosen if len(part)]

    def _last_key(self, strategy: Strategy | None) -> int:
        """Key of the last example chosen on any process."""
        assert self.size is not None
        if strategy is None:
            return _NEVER if self._keys is None else int(self._keys[-1])
        mine = torch.full((self.size,), _NEVER, device=strategy.root_device)
        if self._keys is not None:
            mine[: len(self._keys)] = self._keys
        everywhere = torch.unique(strategy.all_gather(mine))[: self.size]
        return int(everywhere[-1])


def _trimmed(batch: Batch) -> Batch:
    length = int(batch.valid.sum(dim=1).max()) if len(batch) else 0
    return batch.shortened(length)
