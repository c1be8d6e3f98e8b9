"""Rows in parts that fit a token budget, and what they give put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_attn.types import InputError

Result = TypeVar("Result")


def rows_within(max_tokens: int, tokens: int) -> int:
    """How many rows of ``tokens`` positions a budget allows, at least one.

    Raises:
        InputError: ``max_tokens`` is below 1.
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens, the positions computed at a time, must be at least 1, not {max_tokens}.")
    return max(1, max_tokens // max(1, tokens))


def by_parts(function: Callable[[Tensor], Result], valid: Tensor, max_tokens: int, repeats: int = 1) -> Result:
    """Call ``function`` on parts of the rows and join the tensors of the dataclasses that it returns.

    Args:
        function: From the numbers of P rows, shape ``(P,)``, to a dataclass of tensors whose first dimension is P.
        valid: ``Batch.valid``, shape ``(B, L)``.
        max_tokens: Most positions, padding included, of a part; a single row may exceed it.
        repeats: How often each row is held at a time.

    Returns:
        A dataclass of the same kind, for all B rows in their order.

    Raises:
        InputError: ``max_tokens`` is below 1.
    """
    rows = rows_within(max_tokens, valid.shape[1] * repeats)
    parts = torch.split(torch.arange(len(valid), device=valid.device), rows)
    found: list[Any] = [function(part) for part in parts]
    if len(found) == 1:
        return found[0]  # type: ignore[no-any-return]
    names = [field.name for field in dataclasses.fields(found[0])]
    joined = {name: torch.cat([getattr(part, name) for part in found]) for name in names}
    return type(found[0])(**joined)  # type: ignore[no-any-return]
