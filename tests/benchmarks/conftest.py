"""What the benchmarks change for a process of their own is put back after each test."""

import logging
import warnings
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_process() -> Iterator[None]:
    logger = logging.getLogger("pytorch_lightning")
    level, threads = logger.level, torch.get_num_threads()
    with warnings.catch_warnings():
        yield
    logger.setLevel(level)
    torch.set_num_threads(threads)
