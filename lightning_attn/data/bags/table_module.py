"""Bags of one's own from a table with one row an instance: `BagTableDataModule`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_attn.data.bags.files import find_bag_files
from lightning_attn.data.bags.store import FeatureFile, RawBags
from lightning_attn.data.bags.stored import StoredBagDataModule
from lightning_attn.data.bags.table_columns import Columns
from lightning_attn.data.bags.table_reader import TableReader
from lightning_attn.data.tables import SEPARATORS
from lightning_attn.errors import InputError


class BagTableDataModule(StoredBagDataModule):
    """Bags from csv, tsv (also .gz, .xz) or parquet files with one row an instance, read a part at a time into a cache.

    A million instances need no more memory than a few. Splits are found by file name (train; val, valid, validation or
    dev; test) or in the ``split`` column; what is missing is carved from train by bags, by ``seed`` alone.

    Args:
        path: A file, or a folder with one or more files of each split.
        bag: Column of the bag ids; the rows of a bag need not stand together.
        features: What the names of the columns of features begin with; or a list of these columns. In parquet it may be
            one column of lists.
        label: Column of the bag's label, the same in all its rows: strings or whole numbers; lists of them (parquet)
            where a bag may belong to several classes. Or a list of columns of 0 and 1, one a class, which does so too.
        instance: Column of instance ids, each once in a bag; None if there is none.
        key: Column with one number in [0, 1] an instance, how important it is; empty where unknown. None if there is
            none.
        keys: Column with the ids of the bag's key instances, a list or separated by spaces, in any of its rows; the
            other instances are not key. Needs ``instance``. None if there is none.
        split: Column that says which split the bag belongs to; None finds splits by the names of files.
        val_share: Part of train that becomes ``val`` if there is none, in [0, 1); 0 goes without.
        test_share: Part of train that becomes ``test`` if there is none, in [0, 1); 0 goes without.
        cache_dir: Where prepared data are kept; None means LIGHTNING_ATTN_CACHE or ``~/.cache/lightning_attn``.
        batch_size: Bags of a training batch at most, on each process.
        seed: Decides what is carved, and the order of training bags.
        num_workers: Processes that make batches beside the main one.
        evaluation_batch_size: Bags of a batch in validation, test and prediction; None means ``batch_size``.
        max_instances: Instances of a batch at most; None for no limit.

    Raises:
        InputError: A number is out of its range, or arguments contradict each other.
    """

    def __init__(
        self,
        path: str | Path,
        bag: str = "bag",
        features: str | list[str] = "feature",
        label: str | list[str] = "label",
        instance: str | None = None,
        key: str | None = None,
        keys: str | None = None,
        split: str | None = None,
        val_share: float = 0.1,
        test_share: float = 0.1,
        cache_dir: str | Path | None = None,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int | None = None,
        max_instances: int | None = None,
    ) -> None:
        super().__init__(
            val_share, test_share, cache_dir, batch_size, seed, num_workers, evaluation_batch_size, max_instances
        )
        if key is not None and keys is not None:
            raise InputError(
                f"Give key ({key!r}, a number an instance) or keys ({keys!r}, ids of instances), not both."
            )
        if keys is not None and instance is None:
            raise InputError(
                f"The keys in {keys!r} are ids of instances: say in which column those are, with instance."
            )
        self.path = path
        self.columns = Columns(bag, features, label, instance, key, keys, split)

    def files(self) -> dict[str, list[Path]]:
        """The tables of each split."""
        return find_bag_files(self.path, [*SEPARATORS, ".parquet"])

    def settings(self) -> dict[str, Any]:
        """The columns."""
        return asdict(self.columns)

    def read(self, features: FeatureFile) -> RawBags:
        """Read the tables, and bring the instances of each bag together."""
        raw, order = TableReader(self.columns, features).read(self.files())
        if order is not None:
            features.reorder(order)
        return raw
