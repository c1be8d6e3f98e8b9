"""Networks that are looked at and not trained: evaluation mode for a while, and whether their weights are finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode; on leaving, give every module back the mode it had.

    ``network.train()`` would not do: a mitigation keeps frozen modules in evaluation mode while the rest trains.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def unmixed(device: torch.device) -> AbstractContextManager[None]:
    """The precision of the weights inside: automatic mixed precision is for training, and its figures are coarse."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def not_finite(network: nn.Module) -> str:
    """What is wrong with the weights, such as ``weights of the network are NaN ...``; empty if all are finite.

    It waits for the device once.
    """
    names, weights = [], []
    for name, weight in network.named_parameters():
        if weight.is_floating_point() or weight.is_complex():
            names.append(name)
            weights.append(weight.detach().isfinite().all())
    if not weights or bool(torch.stack(weights).all()):
        return ""
    broken = [name for name, finite in zip(names, weights, strict=True) if not finite]
    more = f" and {len(broken) - 1} others" if len(broken) > 1 else ""
    return f"weights of the network are NaN or infinite ({broken[0]}{more})"
