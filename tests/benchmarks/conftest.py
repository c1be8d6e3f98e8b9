"""Tests of ``benchmarks/`` are marked; what these change for a process of their own is put back after each module."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")  # so that it comes before the fixtures of a module
def _own_process() -> Iterator[None]:
    logger = logging.getLogger("pytorch_lightning")
    level, threads = logger.level, torch.get_num_threads()
    with warnings.catch_warnings():
        yield
    logger.setLevel(level)
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.benchmarks)
