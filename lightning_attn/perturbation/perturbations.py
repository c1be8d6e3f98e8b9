"""What happens to the positions that a variant lacks: they disappear, or hold something else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.types import Batch, DataSchema


class Perturbation(ABC):
    """What happens to the positions that a variant does not keep."""

    #: Whether a removed position disappears, so that the variant is shorter.
    shortens: bool = False

    @abstractmethod
    def apply(self, batch: Batch, keep: Tensor, schema: DataSchema) -> Batch:
        """The perturbed batch.

        Args:
            batch: R examples without evidence.
            keep: True where the input stays as it is, shape ``(R, L)``; True on special positions and padding.
            schema: Gives the ids of padding and replacement.
        """


@dataclass(eq=False)  # so that a configuration in which one stands can be written down
class Delete(Perturbation):
    """Removed positions disappear and the rest closes up. The default."""

    shortens = True

    def apply(self, batch: Batch, keep: Tensor, schema: DataSchema) -> Batch:
        """The batch without what is not kept, as long as its longest example."""
        remaining = keep & batch.valid
        lengths = remaining.sum(dim=1)
        # A variant with nothing left still needs a column to stand in.
        columns = torch.arange(max(1, int(lengths.max())), device=batch.device)
        valid = columns < lengths[:, None]
        fill = 0 if batch.inputs.is_floating_point() else schema.pad_id
        inputs = batch.inputs.new_full((*valid.shape, *batch.inputs.shape[2:]), fill)
        inputs[valid] = batch.inputs[remaining]
        special = torch.zeros_like(valid)
        special[valid] = batch.special[remaining]
        segments = None
        if batch.segments is not None:
            segments = torch.zeros_like(valid, dtype=batch.segments.dtype)
            segments[valid] = batch.segments[remaining]
        return batch.replace(inputs=inputs, valid=valid, special=special, segments=segments)


class Overwrite(Perturbation):
    """Removed positions stay, valid, with other content."""

    @abstractmethod
    def content(self, schema: DataSchema) -> int:
        """The token id to write."""

    def apply(self, batch: Batch, keep: Tensor, schema: DataSchema) -> Batch:
        """The batch with other content where it is not kept, without columns that are padding in every example."""
        used = batch.valid.any(dim=0).nonzero()
        length = max(1, int(used.max()) + 1 if len(used) else 0)
        batch = batch.shortened(length)
        inputs = batch.inputs.clone()
        inputs[~keep[:, :length]] = 0.0 if inputs.is_floating_point() else self.content(schema)
        return batch.replace(inputs=inputs)


@dataclass(eq=False)
class Replace(Overwrite):
    """Removed tokens become ``schema.replacement_id``, [MASK] or ``<unk>``; removed instances become zeros."""

    @override
    def content(self, schema: DataSchema) -> int:
        return schema.replacement_id


@dataclass(eq=False)
class Pad(Overwrite):
    """Removed tokens become ``schema.pad_id`` but stay valid, as in Mask-LRP and AttCAT; instances become zeros."""

    @override
    def content(self, schema: DataSchema) -> int:
        return schema.pad_id
