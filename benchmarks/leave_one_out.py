"""Leave-one-out against captum's FeatureAblation: ``python -m benchmarks.leave_one_out --encoder bilstm cnn average``.

The 872 development sentences of SST (folder in LIGHTNING_ATTN_DATA; random sentences of the same lengths without it),
each token replaced by ``<unk>``, a network of 128 hidden units an encoder. captum gets its best batch setting, on
batches that are sorted by length; the scores of both are compared first. ``by reading`` is the generic path, which
reads every variant from its first token to its last.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from captum.attr import FeatureAblation
from torch import Tensor

from lightning_attn.attribution import Occlusion
from lightning_attn.encoders import CNN, BiLSTM, Encoder, TokenMLP
from lightning_attn.networks import PooledNetwork
from lightning_attn.perturbation.perturbations import Replace
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out, unperturbed
from lightning_attn.types import Batch, DataSchema

BATCH_SIZES, PERTURBATIONS = (8, 32, 128), (1, 4, 16, 64)
#: By name, the encoder and how many times as fast as captum leave-one-out has to be.
ENCODERS: dict[str, tuple[Callable[[], Encoder], float]] = {
    "bilstm": (BiLSTM, 1.5),
    "cnn": (CNN, 10.0),
    "average": (TokenMLP, 10.0),
}


def sentences() -> list[list[int]]:
    """Token ids from 2 on: 0 is padding and 1 is ``<unk>``."""
    folder = os.environ.get("LIGHTNING_ATTN_DATA")
    if folder is None:
        generator = torch.Generator().manual_seed(0)
        lengths = (torch.randn(872, generator=generator) * 9 + 18).round().clamp(2, 45).int().tolist()
        return [torch.randint(2, 4000, (length,), generator=generator).tolist() for length in lengths]
    with (Path(folder) / "sst" / "sst_dataset.csv").open(encoding="utf-8") as lines:
        texts = [row["text"].split() for row in csv.DictReader(lines) if row["exp_split"] == "dev"]
    vocabulary: dict[str, int] = {}
    return [[2 + vocabulary.setdefault(word, len(vocabulary)) for word in text] for text in texts]


def batches(texts: list[list[int]], size: int) -> list[Batch]:
    """Padded batches in the given order."""
    result = []
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        width = max(map(len, part))
        inputs = torch.tensor([ids + [0] * (width - len(ids)) for ids in part])
        valid = torch.arange(width) < torch.tensor([len(ids) for ids in part])[:, None]
        index = torch.arange(start, start + len(part))
        result.append(Batch(inputs, valid, torch.zeros_like(valid), torch.zeros_like(index), index))
    return result


def by_captum(network: PooledNetwork, batch: Batch, perturbations: int) -> Tensor:
    """Drop of the predicted class's probability, shape ``(B, L)``."""

    def probability(ids: Tensor, valid: Tensor) -> Tensor:
        rows = torch.zeros(len(ids), dtype=torch.int64)
        variant = Batch(ids, valid, torch.zeros_like(valid), rows, rows)
        return network(variant).logits.softmax(-1)

    with torch.no_grad():
        target = network(batch).logits.argmax(-1)
        scores: Tensor = FeatureAblation(probability).attribute(
            batch.inputs,
            baselines=1,
            target=target,
            additional_forward_args=(batch.valid,),
            perturbations_per_eval=perturbations,
        )
    return scores


def by_reading(network: PooledNetwork, batch: Batch) -> Tensor:
    """All probabilities by the generic path, shape ``(B, L + 1, C)``."""
    keep = torch.cat([unperturbed(batch), leave_one_out(batch)], dim=1)
    return probabilities(network, batch, keep, Replace(), fast_path=False)


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(name: str, texts: list[list[int]], repeats: int) -> None:
    """Print the settings that were tried and the ratio for one encoder."""
    make, target = ENCODERS[name]
    torch.manual_seed(0)
    network = PooledNetwork(make())
    network.build(DataSchema(num_classes=2, vocabulary_size=2 + max(map(max, texts)))).eval()
    by_length = sorted(texts, key=len)
    sorted_batches = {size: batches(by_length, size) for size in BATCH_SIZES}
    in_file_order = batches(texts, 128)
    occlusion = Occlusion(Replace(), signed=True)

    for batch in sorted_batches[32]:
        found, expected = occlusion.attribute(network, batch), by_captum(network, batch, 16)
        torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)
    print(f"{name}: {len(texts)} sentences, {sum(map(len, texts))} tokens: scores agree within 1e-5")

    def theirs(size: int, perturbations: int) -> float:
        return timed(lambda: [by_captum(network, batch, perturbations) for batch in sorted_batches[size]])

    tried = {}
    for size in BATCH_SIZES:
        for perturbations in PERTURBATIONS:
            tried[size, perturbations] = min(theirs(size, perturbations) for _ in range(2))
            print(f"captum, batch {size}, perturbations_per_eval {perturbations}: {tried[size, perturbations]:.3f} s")
    size, perturbations = min(tried, key=lambda setting: tried[setting])
    rounds = [  # alternating, so that a busy machine slows all alike
        (
            theirs(size, perturbations),
            timed(lambda: [occlusion.attribute(network, batch) for batch in in_file_order]),
            timed(lambda: [by_reading(network, batch) for batch in in_file_order]),
        )
        for _ in range(repeats)
    ]
    captum_seconds, our_seconds, reading_seconds = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{name}: captum at its best (batch {size}, perturbations_per_eval {perturbations}) {captum_seconds:.3f} s, "
        f"ours (batch 128 in file order) {our_seconds:.3f} s, by reading {reading_seconds:.3f} s, median of {repeats}: "
        f"{captum_seconds / our_seconds:.2f}x captum (target {target}x), {reading_seconds / our_seconds:.2f}x reading"
    )


def main() -> None:
    """Compare each encoder that was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    texts = sentences()
    for name in arguments.encoder:
        compare(name, texts, arguments.repeats)


if __name__ == "__main__":
    main()
