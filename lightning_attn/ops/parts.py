"""Rows in parts that fit a token budget, or are of similar lengths too, and what they give put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.types import Batch

Result = TypeVar("Result")


def rows_within(max_tokens: int, tokens: int) -> int:
    """How many rows of ``tokens`` positions a budget allows, at least one.

    Raises:
        InputError: ``max_tokens`` is below 1.
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens, the positions computed at a time, must be at least 1, not {max_tokens}.")
    return max(1, max_tokens // max(1, tokens))


def enough_positions(max_tokens: int, device: torch.device) -> int:
    """From how many positions on a group of :func:`group_sizes` is worth a call of its own."""
    # Only on the CPU do the faster rows outweigh the calls; an accelerator wants full groups.
    return max_tokens // 64 if device.type == "cpu" else max_tokens


def group_sizes(lengths: list[int], max_tokens: int, enough: int) -> list[int]:
    """Sizes of consecutive groups of rows, for lengths in descending order.

    Rows of one length run much faster in a recurrent encoder than mixed ones, and no network reads padding then. So a
    group that has ``enough`` positions ends where the length changes.

    Args:
        lengths: Positions of each row.
        max_tokens: Most positions of a group, padding included; a single row may exceed it.
        enough: See :func:`enough_positions`.
    """
    sizes = []
    start = 0
    while start < len(lengths):
        longest = max(1, lengths[start])
        end = min(len(lengths), start + max(1, max_tokens // longest))
        if lengths[end - 1] != lengths[start]:
            least = start + max(1, -(-enough // longest))
            changes = (i for i in range(least, end) if lengths[i] != lengths[i - 1])
            end = next(changes, end)
        sizes.append(end - start)
        start = end
    return sizes


def narrowed(batch: Batch, max_tokens: int, passes: int, keep_width: bool = False) -> Iterator[tuple[Tensor, Batch]]:
    """Groups of texts of similar lengths, the longest first, each without columns that are padding in all its texts.

    Args:
        batch: B texts.
        max_tokens: Most positions of a group, in all passes together; a single text may exceed it.
        passes: How often each text is read.
        keep_width: Whether columns stay: what a span's column of the logits means depends on how far a text is padded.

    Yields:
        Numbers of the rows, and the batch of them.
    """
    columns = torch.arange(1, batch.valid.shape[1] + 1, device=batch.device)
    read = torch.ones_like(batch.valid) if keep_width else batch.valid
    widths = (read * columns).amax(dim=1).clamp(min=1)
    order = widths.argsort(descending=True, stable=True)
    sizes = group_sizes((widths[order] * passes).tolist(), max_tokens, enough_positions(max_tokens, batch.device))
    for rows in torch.split(order, sizes):
        yield rows, batch.select(rows).shortened(int(widths[rows[0]]))


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
