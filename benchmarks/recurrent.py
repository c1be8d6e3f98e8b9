"""A gradient through a bidirectional LSTM against packed sequences: ``python -m benchmarks.recurrent``.

Batches of 32 as training makes them of SST and IMDB, about even in length, where LIGHTNING_ATTN_DATA says they are;
else of such lengths. States and gradients are compared first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_attn.data import SSTDataModule, TextDataModule
from lightning_attn.ops.recurrent import bidirectional_states

REPEATS, BATCHES, SIZE = 3, 6, 128


def lengths_of_batches() -> dict[str, list[Tensor]]:
    """By data set, the lengths of some training batches."""
    folder = os.environ.get("LIGHTNING_ATTN_DATA")
    if not folder:
        drawn = np.random.default_rng(0)
        means = {"short": 20, "long": 230}
        return {
            name: [
                torch.from_numpy(drawn.normal(mean, mean / 10, 32).round().clip(2).astype(np.int64))
                for mean in drawn.gamma(3, center / 3, BATCHES)
            ]
            for name, center in means.items()
        }
    found = {}
    for name, data in (("SST", SSTDataModule(f"{folder}/sst")), ("IMDB", TextDataModule(f"{folder}/imdb"))):
        data.prepare_data()
        data.setup("fit")
        found[name] = [batch.valid.sum(1) for _, batch in zip(range(BATCHES), data.train_dataloader(), strict=False)]
    return found


def packed(layer: nn.LSTM, inputs: Tensor, lengths: Tensor) -> Tensor:
    """The peer: what PyTorch's tutorials do."""
    sequences = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(layer(sequences)[0], batch_first=True, total_length=inputs.shape[1])[0]


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    layer = nn.LSTM(SIZE, SIZE, batch_first=True, bidirectional=True)
    for name, batches in lengths_of_batches().items():
        totals = [0.0, 0.0]
        for lengths in batches:
            inputs = torch.randn(len(lengths), int(lengths.max()), SIZE, requires_grad=True)
            times: list[list[float]] = [[], []]
            outcomes = []
            for _ in range(REPEATS):
                for number, run in enumerate((packed, bidirectional_states)):
                    start = time.perf_counter()
                    states = run(layer, inputs, lengths)
                    gradients = torch.autograd.grad(states.square().sum(), [inputs, *layer.parameters()])
                    times[number].append(time.perf_counter() - start)
                    outcomes.append((states.detach(), *gradients))
            for theirs, ours in zip(outcomes[0], outcomes[1], strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
            for number in range(2):
                totals[number] += statistics.median(times[number])
        theirs_s, ours_s = totals
        print(f"{name}: packed {theirs_s:.2f} s, each direction by itself {ours_s:.2f} s, {theirs_s / ours_s:.1f}x")


if __name__ == "__main__":
    main()
