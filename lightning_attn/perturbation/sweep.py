"""The perturbation sweep: many variants of the same examples, made in token-id space, each distinct one run once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.parts import enough_positions, group_sizes
from lightning_attn.perturbation.fast_path import variant_reader
from lightning_attn.perturbation.perturbations import Delete, Perturbation
from lightning_attn.perturbation.reader import FullReader
from lightning_attn.perturbation.signatures import OWNER, distinct, removal_signatures, removed_counts
from lightning_attn.types import Batch


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
    fast_path: bool = True,
) -> Tensor:
    """Class probabilities of variants of a batch: the sweep.

    Equal variants of an example are run once, in groups of at most ``max_tokens`` positions, padding included, in
    evaluation mode without gradients; attention is recomputed. Where the network has a fast path, what a
    removal leaves as it was is not computed again; the numbers are the same but for rounding.

    Args:
        network: Built network.
        batch: B examples; queries and indices go along, evidence does not.
        keep: Variant v of example b keeps ``keep[b, v]``, shape ``(B, V, L)``, bool. Special positions always stay.
        perturbation: What happens to the others; None means ``Delete()``.
        max_tokens: Bound on rows times longest row; a single row may exceed it.
        full: Unperturbed probabilities, shape ``(B, C)``, if known: then no text is run unperturbed. Where the
            difference to them matters and rounding may differ (mixed precision, TF32), ask for :func:`unperturbed` too.
        fast_path: Whether to take the network's fast path, if it has one; else every variant is read from its first
            token to its last.

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
    signatures = removal_signatures(keep, batch.inner)
    examples = torch.arange(len(batch), device=batch.device)
    first, inverse = distinct((signatures + examples[:, None] * OWNER).flatten())
    row, variant = first // keep.shape[1], first % keep.shape[1]

    todo = torch.arange(len(first), device=batch.device)
    if full is not None:
        todo = todo[signatures.flatten()[first] != 0]
    parts = []
    with torch.no_grad(), evaluating(network):
        batch = network.read_query(batch)
        reader = variant_reader(network, perturbation) if fast_path else FullReader(network, perturbation)
        lengths = batch.valid.sum(dim=1)[row[todo]]
        if reader.shares:
            order = (lengths * len(batch) + row[todo]).argsort(descending=True)
            enough = max_tokens
        else:
            if perturbation.shortens:
                lengths = lengths - removed_counts(keep, batch.inner).flatten()[first[todo]]
            order = lengths.argsort(descending=True, stable=True)
            enough = enough_positions(max_tokens, batch.device)
        todo = todo[order]
        for group in torch.split(todo, group_sizes(lengths[order].tolist(), max_tokens, enough)):
            kept = keep[row[group], variant[group]] | ~batch.inner[row[group]]
            logits = reader.logits(batch, row[group], kept)
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
    fast_path: bool = True,
) -> dict[str, Tensor]:
    """One run of :func:`probabilities` for several requests; a variant that two of them ask for is run once.

    Args:
        network: See :func:`probabilities`.
        batch: See :func:`probabilities`.
        requests: By name, what to keep, shape ``(B, V, L)``, bool, each with its own V.
        perturbation: See :func:`probabilities`.
        max_tokens: See :func:`probabilities`.
        full: See :func:`probabilities`.
        fast_path: See :func:`probabilities`.

    Returns:
        By name, probabilities of shape ``(B, V, C)``.
    """
    if not requests:
        return {}
    keep = torch.cat(list(requests.values()), dim=1)
    answers = probabilities(network, batch, keep, perturbation, max_tokens, full, fast_path)
    sizes = [request.shape[1] for request in requests.values()]
    return dict(zip(requests, torch.split(answers, sizes, dim=1), strict=True))
