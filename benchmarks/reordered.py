"""The same texts for every seed, in another order: `Reordered`."""

from __future__ import annotations

from typing import Any

from lightning_attn.data.base import AttentionDataModule
from lightning_attn.data.encoded import SplitDataset
from lightning_attn.types import DataSchema


class Reordered(AttentionDataModule):
    """The splits of another data module, with training batches in an order of its own.

    A seed decides how some data modules split or arrange their texts. Here every seed trains on the same texts, so that
    arms and seeds can be compared example by example.

    Args:
        data: Is set up here.
        batch_size: Examples of a training batch.
        seed: Of the order.
    """

    def __init__(self, data: AttentionDataModule, batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed, evaluation_batch_size=64)
        self.data = data
        data.prepare_data()
        data.setup()

    @property
    def schema(self) -> DataSchema:
        return self.data.schema

    @property
    def splits(self) -> list[str]:
        return self.data.splits

    def dataset(self, split: str) -> SplitDataset:
        return self.data.dataset(split)

    def export(self) -> dict[str, Any]:
        return self.data.export()

    def restore(self, state: dict[str, Any]) -> None:
        self.data.restore(state)

    def describe(self) -> str:
        return self.data.describe()
