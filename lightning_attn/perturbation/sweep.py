"""The perturbation sweep: many variants of the same examples, made in token-id space, each distinct one run once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.parts import enough_positions, group_sizes
from lightning_attn.ops.randomness import mix
from lightning_attn.perturbation.removal import Reread, distinct
from lightning_attn.types import Batch, DataSchema

if TYPE_CHECKING:
    from lightning_attn.networks.base import AttentionNetwork

#: Elements of the largest temporary tensor while variants are compared.
_CHUNK = 1 << 22


class Perturbation(ABC):
    """What happens to the positions that a variant does not keep."""

    #: Whether a removed position disappears, so that the variant is shorter.
    shortens: bool = False

    @abstractmethod
    def apply(self, batch: Batch, keep: Tensor, schema: DataSchema) -> Batch:
        """The perturbed batch.

        Args:
            batch: R examples without evidence.
            keep: True where the input stays as it is, shape ``(R, L)``; True on special positions and padding.
            schema: Gives the ids of padding and replacement.
        """


@dataclass(eq=False)  # so that a configuration in which one stands can be written down
class Delete(Perturbation):
    """Removed positions disappear and the rest closes up. The default."""

    shortens = True

    def apply(self, batch: Batch, keep: Tensor, schema: DataSchema) -> Batch:
        """See :meth:`Perturbation.apply`; the result is as long as its longest example."""
        remaining = keep & batch.valid
        lengths = remaining.sum(dim=1)
        # A variant with nothing left still needs a column to stand in.
        columns = torch.arange(max(1, int(lengths.max())), device=batch.device)
        valid = columns < lengths[:, None]
        fill = 0 if batch.inputs.is_floating_point() else schema.pad_id
        inputs = batch.inputs.new_full((*valid.shape, *batch.inputs.shape[2:]), fill)
        inputs[valid] = batch.inputs[remaining]
        special = torch.zeros_like(valid)
        special[valid] = batch.special[remaining]
        segments = None
        if batch.segments is not None:
            segments = torch.zeros_like(valid, dtype=batch.segments.dtype)
            segments[valid] = batch.segments[remaining]
        return batch.replace(inputs=inputs, valid=valid, special=special, segments=segments)


class Overwrite(Perturbation):
    """Removed positions stay, valid, with other content."""

    @abstractmethod
    def content(self, schema: DataSchema) -> int:
        """The token id to write."""

    def apply(self, batch: Batch, keep: Tensor, schema: DataSchema) -> Batch:
        """See :meth:`Perturbation.apply`; columns that are padding in every example are cut off."""
        used = batch.valid.any(dim=0).nonzero()
        length = max(1, int(used.max()) + 1 if len(used) else 0)
        batch = batch.shortened(length)
        inputs = batch.inputs.clone()
        inputs[~keep[:, :length]] = 0.0 if inputs.is_floating_point() else self.content(schema)
        return batch.replace(inputs=inputs)


@dataclass(eq=False)
class Replace(Overwrite):
    """Removed tokens become ``schema.replacement_id``, [MASK] or ``<unk>``; removed instances become zeros."""

    def content(self, schema: DataSchema) -> int:
        """The replacement id."""
        return schema.replacement_id


@dataclass(eq=False)
class Pad(Overwrite):
    """Removed tokens become ``schema.pad_id`` but stay valid, as in Mask-LRP and AttCAT; instances become zeros."""

    def content(self, schema: DataSchema) -> int:
        """The padding id."""
        return schema.pad_id


def ranks(scores: Tensor, batch: Batch) -> Tensor:
    """Rank of every position, 0 = highest score, shape ``(B, L)``, int64; ties go to the earlier position.

    Positions that are not ``batch.inner`` come last.
    """
    order = scores.masked_fill(~batch.inner, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1)


def unperturbed(batch: Batch) -> Tensor:
    """The one variant that keeps everything, shape ``(B, 1, L)``."""
    return torch.ones_like(batch.valid)[:, None]


def leave_one_out(batch: Batch) -> Tensor:
    """Variant i lacks position i, shape ``(B, L, L)``; nothing is removed where i is special or padding."""
    length = batch.valid.shape[1]
    return ~(torch.eye(length, dtype=torch.bool, device=batch.device) & batch.inner[:, None])


def top_k_removed(scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
    """Variants without their k best-ranked positions.

    Args:
        scores: Shape ``(B, L)``.
        batch: Says which positions may be ranked and removed.
        counts: k of each variant, shape ``(B, K)``, from :meth:`lightning_attn.perturbation.budget.Budget.counts`.

    Returns:
        What to keep, shape ``(B, K, L)``, bool.
    """
    removed = ranks(scores, batch)[:, None] < counts[..., None]
    return ~(removed & batch.inner[:, None])


def top_k_kept(scores: Tensor, batch: Batch, counts: Tensor) -> Tensor:
    """Variants with only their k best-ranked positions, and special ones; see :func:`top_k_removed`."""
    return (ranks(scores, batch)[:, None] < counts[..., None]) | ~batch.inner[:, None]


def output_change(full: Tensor, perturbed: Tensor) -> Tensor:
    """``mean_c |p_c(x) - p_c(x')|``, shape ``(B, V)``, in [0, 1].

    Args:
        full: Unperturbed probabilities, shape ``(B, C)``.
        perturbed: Shape ``(B, V, C)``.
    """
    return (full[:, None] - perturbed).abs().mean(dim=-1)


def probabilities(
    network: AttentionNetwork,
    batch: Batch,
    keep: Tensor,
    perturbation: Perturbation | None = None,
    max_tokens: int = 16384,
    full: Tensor | None = None,
    shortcut: bool = True,
) -> Tensor:
    """Class probabilities of variants of a batch: the sweep.

    Equal variants of an example are run once, in groups of at most ``max_tokens`` positions, padding included, in
    evaluation mode without gradients; attention is recomputed. Where the network offers a shortcut, what a removal
    leaves as it was is not computed again; the numbers are the same but for rounding.

    Args:
        network: Built network.
        batch: B examples; queries and indices go along, evidence does not.
        keep: Variant v of example b keeps ``keep[b, v]``, shape ``(B, V, L)``, bool. Special positions always stay.
        perturbation: What happens to the others; None means ``Delete()``.
        max_tokens: Bound on rows times longest row; a single row may exceed it.
        full: Unperturbed probabilities, shape ``(B, C)``, if known: then no text is run unperturbed. Where the
            difference to them matters and rounding may differ (mixed precision, TF32), ask for :func:`unperturbed` too.
        shortcut: Whether to take the network's shortcut; else every variant is read from its first token to its last.

    Returns:
        Shape ``(B, V, C)``.

    Raises:
        InputError: The network answers by spans, whose number changes with the text.
    """
    if network.schema.spans:
        raise InputError(
            "Tokens are removed to compare probabilities of classes, and a network that answers by spans has none: use "
            "answer recall, or an attribution that removes nothing, such as rollout or transatt."
        )
    perturbation = perturbation or Delete()
    if keep.shape[0] * keep.shape[1] == 0:
        return torch.empty(*keep.shape[:2], network.schema.num_classes, device=batch.device)
    batch = batch.replace(evidence=None)
    signatures = _signatures(keep, batch.inner)
    examples = torch.arange(len(batch), device=batch.device)
    # Odd multiples of the row tell equal variants of different examples apart.
    first, inverse = distinct((signatures + examples[:, None] * _ROW).flatten())
    row, variant = first // keep.shape[1], first % keep.shape[1]

    todo = torch.arange(len(first), device=batch.device)
    if full is not None:
        todo = todo[signatures.flatten()[first] != 0]
    parts = []
    with torch.no_grad(), evaluating(network):
        batch = network.read_query(batch)
        removal = network.removal(perturbation) if shortcut else Reread(network, perturbation)
        lengths = batch.valid.sum(dim=1)[row[todo]]
        if removal.shares:
            order = (lengths * len(batch) + row[todo]).argsort(descending=True)
            enough = max_tokens
        else:
            if perturbation.shortens:
                lengths = lengths - _removed_counts(keep, batch.inner).flatten()[first[todo]]
            order = lengths.argsort(descending=True, stable=True)
            enough = enough_positions(max_tokens, batch.device)
        todo = todo[order]
        for group in torch.split(todo, group_sizes(lengths[order].tolist(), max_tokens, enough)):
            kept = keep[row[group], variant[group]] | ~batch.inner[row[group]]
            logits = removal.logits(batch, row[group], kept)
            # Under mixed precision the logits may be of half precision: too coarse for differences of probabilities.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            parts.append(network.schema.probabilities(logits))
    if full is not None:
        table = full[row].clone()
    else:
        table = torch.empty(len(row), network.schema.num_classes, device=batch.device, dtype=parts[0].dtype)
    if parts:
        table[todo] = torch.cat(parts).to(table.dtype)
    return table[inverse].reshape(*keep.shape[:2], table.shape[-1])


def sweep(
    network: AttentionNetwork,
    batch: Batch,
    requests: Mapping[str, Tensor],
    perturbation: Perturbation | None = None,
    max_tokens: int = 16384,
    full: Tensor | None = None,
    shortcut: bool = True,
) -> dict[str, Tensor]:
    """One run of :func:`probabilities` for several requests; a variant that two of them ask for is run once.

    Args:
        network: See :func:`probabilities`.
        batch: See :func:`probabilities`.
        requests: By name, what to keep, shape ``(B, V, L)``, bool, each with its own V.
        perturbation: See :func:`probabilities`.
        max_tokens: See :func:`probabilities`.
        full: See :func:`probabilities`.
        shortcut: See :func:`probabilities`.

    Returns:
        By name, probabilities of shape ``(B, V, C)``.
    """
    if not requests:
        return {}
    keep = torch.cat(list(requests.values()), dim=1)
    found = probabilities(network, batch, keep, perturbation, max_tokens, full, shortcut)
    sizes = [request.shape[1] for request in requests.values()]
    return dict(zip(requests, torch.split(found, sizes, dim=1), strict=True))


_ROW = 0x9E3779B97F4A7C15 - (1 << 64)


def _chunks(keep: Tensor) -> list[slice]:
    """Slices of examples whose variants together stay small."""
    step = max(1, _CHUNK // keep[0].numel())
    return [slice(start, start + step) for start in range(0, len(keep), step)]


def _signatures(keep: Tensor, inner: Tensor) -> Tensor:
    """A number for what each variant removes, shape ``(B, V)``, int64: 0 for nothing; others collide once in 2**64."""
    codes = mix(torch.arange(keep.shape[-1], device=keep.device))
    zero = codes.new_zeros(())
    parts = [torch.where(keep[part] | ~inner[part, None], zero, codes).sum(dim=-1) for part in _chunks(keep)]
    return torch.cat(parts)


def _removed_counts(keep: Tensor, inner: Tensor) -> Tensor:
    """How many positions each variant removes, shape ``(B, V)``, int64."""
    parts = [(~keep[part] & inner[part, None]).sum(dim=-1) for part in _chunks(keep)]
    return torch.cat(parts)
