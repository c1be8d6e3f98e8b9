from __future__ import annotations

import numpy as np
import torch
from scipy.stats import kstest

from lightning_attn.ops.randomness import normal, uniform


def test_numbers_belong_to_the_example_not_to_the_batch():
    together = uniform(torch.tensor([5, 9, 2]), 20, seed=3)
    assert torch.equal(uniform(torch.tensor([2, 5]), 7, seed=3), together[[2, 0], :7])


def test_another_seed_or_index_gives_other_numbers():
    index = torch.arange(50)
    assert (uniform(index, 20, 0) == uniform(index, 20, 1)).float().mean() < 0.01
    assert uniform(index, 20).flatten().unique().numel() > 990


def test_distributions():
    index = torch.arange(2000)
    drawn = uniform(index, 50, 7)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert kstest(drawn.flatten().numpy(), "uniform").pvalue > 0.001
    assert kstest(normal(index, 50, 7).flatten().numpy(), "norm").pvalue > 0.001
    correlations = np.corrcoef(drawn.numpy().T) - np.eye(50)
    assert np.abs(correlations).max() < 0.11  # 5 standard deviations for 2000 examples
