"""Memory and time of a million instances in 10,000 bags of 1 to 5,000: ``python -m benchmarks.bags_memory``.

Writes a file of arrays and two tables into a temporary folder; reads each into a cache, in a process of its own, which
then takes an epoch of training batches; and prints its largest resident memory, which must be below 2 GiB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BAGS, INSTANCES, LARGEST = 10_000, 1_000_000, 5_000
LIMIT = 2 * 1024  # MiB


def bag_sizes(bags: int = BAGS, instances: int = INSTANCES, largest: int = LARGEST) -> np.ndarray:
    """Sizes from 1 to ``largest``, few large and many small, that add up to ``instances``; shape ``(bags,)``."""
    sizes = np.random.default_rng(0).lognormal(0.0, 1.3, size=bags)
    sizes = np.clip(np.rint(sizes * instances / sizes.sum()), 1, largest).astype(np.int64)
    sizes[:2] = 1, largest
    middling = np.flatnonzero((sizes > 10) & (sizes < largest // 2))
    missing = instances - sizes.sum()
    sizes[middling] += missing // len(middling)
    sizes[middling[: missing % len(middling)]] += 1
    return sizes


def write_csv(path: Path, features: int, shuffled: bool) -> None:
    """A table; the rows of a bag stand apart if ``shuffled``."""
    sizes = bag_sizes()
    generator = np.random.default_rng(1)
    bag = np.repeat(np.arange(BAGS), sizes)
    if shuffled:
        bag = generator.permutation(bag)
    with path.open("w") as file:
        file.write(",".join(["bag", "instance", "label", *(f"feature{n}" for n in range(features))]) + "\n")
        for start in range(0, INSTANCES, 50_000):
            rows = bag[start : start + 50_000]
            numbers = generator.normal(size=(len(rows), features)).round(4).tolist()
            lines = (
                f"b{b},i{start + n},{b % 2},{','.join(map(str, values))}\n"
                for n, (b, values) in enumerate(zip(rows.tolist(), numbers, strict=True))
            )
            file.writelines(lines)


def write_npz(path: Path, features: int) -> None:
    """The same as arrays."""
    generator = np.random.default_rng(1)
    np.savez(
        path,
        features=generator.standard_normal((INSTANCES, features), dtype=np.float32),
        sizes=bag_sizes(),
        label=np.arange(BAGS) % 2,
    )


def load(path: Path, cache: Path) -> None:
    """Read, and take an epoch of batches; prints seconds and MiB."""
    from lightning_attn.data.bags import BagArrayDataModule, BagTableDataModule

    settings = {"cache_dir": cache, "batch_size": 64, "max_instances": 16384}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    data = (
        BagArrayDataModule(path, **settings)
        if path.suffix == ".npz"
        else BagTableDataModule(path, instance="instance", **settings)
    )
    data.prepare_data()
    data.setup()
    read = time.perf_counter() - start
    start = time.perf_counter()
    seen = sum(len(batch.inputs) for batch in data.train_dataloader())
    epoch = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"read {read:5.1f} s, epoch of {seen:,} instances {epoch:5.1f} s, {before:,.0f} MiB before, {peak:,.0f} at most"
    )
    if peak > LIMIT:
        raise SystemExit(f"{peak:,.0f} MiB are more than {LIMIT:,}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load is not None:
        load(arguments.load, arguments.cache)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("arrays.npz", "together.csv", "apart.csv"):
            path = Path(folder) / name
            if path.suffix == ".npz":
                write_npz(path, arguments.features)
            else:
                write_csv(path, arguments.features, shuffled=name == "apart.csv")
            print(f"{name:13} {path.stat().st_size / 1e6:7,.0f} MB: ", end="", flush=True)
            command = ["--load", str(path), "--cache", str(Path(folder) / path.stem)]
            subprocess.run([sys.executable, "-m", "benchmarks.bags_memory", *command], check=True)
            path.unlink()


if __name__ == "__main__":
    main()
