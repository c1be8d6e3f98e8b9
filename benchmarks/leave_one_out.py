"""Leave-one-out against captum's FeatureAblation: ``python -m benchmarks.leave_one_out``.

The 872 development sentences of SST (folder in LIGHTNING_ATTN_DATA; random sentences of the same lengths without it), a
BiLSTM, each token replaced by ``<unk>``. captum gets its best batch setting, on batches that are sorted by length; the
scores of both are compared first.
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
from lightning_attn.encoders import BiLSTM
from lightning_attn.networks import PooledNetwork
from lightning_attn.perturbation import Replace
from lightning_attn.types import Batch, DataSchema

BATCH_SIZES, PERTURBATIONS, REPEATS = (8, 32, 128), (1, 4, 16, 64), 5


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


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print the settings that were tried and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    texts = sentences()
    torch.manual_seed(0)
    network = PooledNetwork(BiLSTM(128, 128))
    network.build(DataSchema(num_classes=2, vocabulary_size=2 + max(map(max, texts)))).eval()
    by_length = sorted(texts, key=len)
    occlusion = Occlusion(Replace(), signed=True)

    def ours(part: list[Batch]) -> list[Tensor]:
        return [occlusion.attribute(network, batch) for batch in part]

    def theirs(part: list[Batch], perturbations: int) -> list[Tensor]:
        return [by_captum(network, batch, perturbations) for batch in part]

    sorted_batches = {size: batches(by_length, size) for size in BATCH_SIZES}
    for found, expected in zip(ours(sorted_batches[32]), theirs(sorted_batches[32], 16), strict=True):
        torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)
    print(f"{len(texts)} sentences, {sum(map(len, texts))} tokens: scores agree within 1e-5")

    tried = {}
    for size, part in sorted_batches.items():
        for perturbations in PERTURBATIONS:
            tried[size, perturbations] = timed(lambda part=part, many=perturbations: theirs(part, many))
            print(f"captum, batch {size}, perturbations_per_eval {perturbations}: {tried[size, perturbations]:.2f} s")
    size, perturbations = min(tried, key=lambda setting: tried[setting])
    in_file_order = batches(texts, 128)
    pairs = [  # alternating, so that a busy machine slows both
        (timed(lambda: theirs(sorted_batches[size], perturbations)), timed(lambda: ours(in_file_order)))
        for _ in range(REPEATS)
    ]
    captum_seconds, our_seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"leave-one-out: captum at its best (batch {size}, perturbations_per_eval {perturbations}) "
        f"{captum_seconds:.2f} s, ours (batch 128 in file order) {our_seconds:.2f} s, "
        f"ratio {captum_seconds / our_seconds:.2f}x (target 1.0x)"
    )


if __name__ == "__main__":
    main()
