"""Batched Kendall tau against scipy in a loop: ``python -m benchmarks.kendall``.

512 texts of 50 tokens, with and without ties; the values are compared first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from lightning_attn.metrics.functional import kendall_tau

EXAMPLES, LENGTH, REPEATS = 512, 50, 5


def seconds(function: Callable[[], object]) -> float:
    """Median time of five calls, after one that does not count."""
    function()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def loop(x: Tensor, y: Tensor) -> np.ndarray:
    """Tau and p-value of every row by scipy, shape ``(B, 2)``."""
    return np.array([tuple(kendalltau(a, b)) for a, b in zip(x.numpy(), y.numpy(), strict=True)])


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    generator = torch.Generator().manual_seed(0)
    valid = torch.ones(EXAMPLES, LENGTH, dtype=torch.bool)
    for dtype in (torch.float32, torch.float64):
        x, y = (torch.rand(EXAMPLES, LENGTH, generator=generator, dtype=dtype) for _ in range(2))
        for name, other in (("no ties", y), ("ties", (y * 10).floor())):
            expected, found = loop(x, other), kendall_tau(x, other, valid)
            np.testing.assert_allclose(found.tau, expected[:, 0], atol=1e-12)
            np.testing.assert_allclose(found.p_value, expected[:, 1], rtol=1e-9)
            theirs, ours = (
                seconds(lambda x=x, y=other: loop(x, y)),
                seconds(lambda x=x, y=other: kendall_tau(x, y, valid)),
            )
            print(
                f"kendall {EXAMPLES} x {LENGTH}, {str(dtype)[6:]}, {name}: same values; scipy {theirs * 1e3:.1f} ms, "
                f"ours {ours * 1e3:.2f} ms, ratio {theirs / ours:.1f}x (target 30x)"
            )


if __name__ == "__main__":
    main()
