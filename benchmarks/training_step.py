"""What the framework costs: ``python -m benchmarks.training_step`` prints throughput ratios of one run.

A bare PyTorch loop over the same network and the same batches stands against the Trainer with `AttentionClassifier`;
then each mitigation stands against none. Parity first: without mitigation both end with the same weights.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.fitting import fit_steps
from lightning_attn.data import AttentionDataModule, SSTDataModule, SyntheticReviewsDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.mitigations import InstanceWeighting, Mitigation, NoMitigation, RandomPretraining
from lightning_attn.networks import PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema

REPEATS = 5


def epoch_of_batches() -> tuple[list[Batch], DataSchema]:
    """The batches of one epoch: SST where ``LIGHTNING_ATTN_DATA`` says it is, else synthetic reviews."""
    folder = os.environ.get("LIGHTNING_ATTN_DATA")
    data: AttentionDataModule
    data = SSTDataModule(f"{folder}/sst") if folder else SyntheticReviewsDataModule(train_size=7000)
    data.prepare_data()
    data.setup("fit")
    return list(data.train_dataloader()), data.schema


def network(schema: DataSchema) -> PooledNetwork:
    """BiLSTM keys, local values; the same weights every time."""
    torch.manual_seed(0)
    return PooledNetwork(BiLSTM(values="local")).build(schema)


def bare_loop(batches: list[Batch], schema: DataSchema) -> PooledNetwork:
    """One epoch as one would write it without any framework."""
    model = network(schema)
    optimiser = torch.optim.AdamW(model.parameters())
    for batch in batches:
        optimiser.zero_grad()
        F.cross_entropy(model(batch).logits, batch.target).backward()
        optimiser.step()
    return model


def framework(batches: list[Batch], schema: DataSchema, mitigation: Mitigation) -> PooledNetwork:
    """The same epoch through the Trainer."""
    module = AttentionClassifier(network(schema), mitigation)
    fit_steps(module, batches)
    return module.network  # type: ignore[return-value]


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Print the ratios."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    batches, schema = epoch_of_batches()
    ours, bare = framework(batches, schema, NoMitigation()), bare_loop(batches, schema)
    for name, value in bare.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), f"parity: {name} differs"
    arms: dict[str, Callable[[], object]] = {
        "bare loop": lambda: bare_loop(batches, schema),
        "none": lambda: framework(batches, schema, NoMitigation()),
        "random pretraining": lambda: framework(batches, schema, RandomPretraining(epochs=1)),
        "instance weighting": lambda: framework(batches, schema, InstanceWeighting()),
    }
    # Interleaved, so that whatever else the machine does meets every arm alike.
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(REPEATS):
        for name, run in arms.items():
            times[name].append(seconds(run))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{len(batches)} batches, median of {REPEATS} epochs, {torch.get_num_threads()} threads")
    for name, value in median.items():
        print(f"  {name:20} {value:7.2f} s")
    paired = {name: [a / b for a, b in zip(times[name], times["none"], strict=True)] for name in arms}
    print(f"throughput against the bare loop:   {statistics.median(paired['bare loop']):.2f} (at least 0.90)")
    print(f"instance weighting, step over none: {statistics.median(paired['instance weighting']):.2f} (at most 1.10)")
    print(f"random pretraining, step over none: {statistics.median(paired['random pretraining']):.2f} (at most 1.02)")


if __name__ == "__main__":
    main()
