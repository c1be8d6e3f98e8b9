"""What every test needs."""

from collections.abc import Iterator

import pytest
import wandb


@pytest.fixture(autouse=True)
def no_open_run() -> Iterator[None]:
    """Weights & Biases has one run per process: one that a test left open would swallow the records of the next."""
    yield
    if wandb.run is not None:
        wandb.finish()
