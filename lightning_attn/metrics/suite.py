"""All per-example measures of a batch from one forward pass, one gradient pass and one perturbation sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.alternatives import adversarial_jsd, permutation_tvd
from lightning_attn.metrics.functional.concentration import effective_tokens, entropy, max_attention, special_mass
from lightning_attn.metrics.functional.erasure import explained, flip_first, flip_fraction
from lightning_attn.metrics.functional.kendall import significant
from lightning_attn.metrics.functional.plausibility import auprc, auroc, span_matches, token_f1
from lightning_attn.metrics.functional.removal_orders import naopc, srg
from lightning_attn.metrics.functional.soft_erasure import soft_comprehensiveness, soft_sufficiency
from lightning_attn.metrics.measurement import ERASURE, Measurement, Settings
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import AttentionOutput, Batch


def _erasure(suffix: str) -> dict[str, Callable[[Measurement], Tensor]]:
    return {f"faithfulness/{measure}{suffix}": partial(_erased, measure, suffix) for measure in ERASURE}


def _erased(measure: str, suffix: str, measurement: Measurement) -> Tensor:
    return measurement.erasure(measure, suffix)


def _flips(suffix: str) -> dict[str, Callable[[Measurement], Tensor]]:
    def fraction(m: Measurement) -> Tensor:
        share = flip_fraction(m.swept["flips" + suffix], m.target, m.flip_counts, m.batch.inner.sum(dim=-1))
        return share.where(m.rankable, torch.nan)

    def first(m: Measurement) -> Tensor:
        return flip_first(m.swept["flips" + suffix], m.target, m.flip_counts).where(m.rankable, torch.nan)

    return {"faithfulness/flip_fraction" + suffix: fraction, "faithfulness/flip_first" + suffix: first}


def _srg(m: Measurement) -> Tensor:
    most_first, least_first = (explained(m.swept[name], m.target) for name in ("most_first", "least_first"))
    return srg(most_first, least_first).where(_long_enough(m), torch.nan)


def _soft(function: Callable[[Tensor, Tensor, Tensor], Tensor], how: str, m: Measurement) -> Tensor:
    full = m.probabilities.gather(-1, m.target[:, None]).squeeze(1)
    return function(full, m.softly[how], m.softly["empty"].squeeze(1)).where(_long_enough(m), torch.nan)


def _long_enough(m: Measurement) -> Tensor:
    """Texts in which one token can matter more than another, and that the preset does not leave out."""
    return m.rankable & m.settings.preset.measures(m.batch)


#: Every measure by the name it is logged under, less the split; each gives one value per example, NaN where undefined.
#: The two ``iou_`` parts go into one ``IOUF1``, because the F1 of means is not a mean.
MEASURES: dict[str, Callable[[Measurement], Tensor]] = {
    "faithfulness/kendall_gradient": lambda m: m.tau_gradient.tau,
    "faithfulness/kendall_gradient_significant": lambda m: significant(m.tau_gradient.p_value, m.settings.level),
    "faithfulness/kendall_loo": lambda m: m.tau_loo.tau,
    "faithfulness/kendall_loo_significant": lambda m: significant(m.tau_loo.p_value, m.settings.level),
    **_erasure(""),
    **_erasure("_random"),
    **_flips(""),
    **_flips("_random"),
    "faithfulness/srg": _srg,
    "faithfulness/naopc": lambda m: naopc(m.order_aopc, *m.order_bounds).where(_long_enough(m), torch.nan),
    "faithfulness/soft_comprehensiveness": partial(_soft, soft_comprehensiveness, "removed"),
    "faithfulness/soft_sufficiency": partial(_soft, soft_sufficiency, "kept"),
    "faithfulness/permutation_tvd": lambda m: permutation_tvd(
        m.network, m.output, m.batch, m.settings.permutations, m.settings.seed, m.settings.max_tokens
    ),
    "faithfulness/adversarial_jsd": lambda m: adversarial_jsd(
        m.network, m.output, m.batch, m.settings.solver, m.settings.max_tokens
    ),
    "attention/entropy": lambda m: entropy(m.output.attention),
    "attention/effective_tokens": lambda m: effective_tokens(m.output.attention),
    "attention/max": lambda m: max_attention(m.output.attention),
    "attention/special_mass": lambda m: special_mass(m.output.attention, m.batch.special),
    "plausibility/auprc": lambda m: auprc(m.scores, m.evidence, m.batch.inner, m.settings.preset.trapezoid),
    "plausibility/auroc": lambda m: auroc(m.scores, m.evidence, m.batch.inner),
    "plausibility/token_f1": lambda m: token_f1(m.scores, m.evidence, m.batch.inner, m.settings.evidence_fraction),
    "plausibility/iou_precision": lambda m: span_matches(
        m.scores, m.evidence, m.batch.inner, m.settings.evidence_fraction
    )[0],
    "plausibility/iou_recall": lambda m: span_matches(
        m.scores, m.evidence, m.batch.inner, m.settings.evidence_fraction
    )[1],
}

#: What costs as much as everything else together, or more.
COSTLY_MEASURES: tuple[str, ...] = (
    "faithfulness/adversarial_jsd",
    "faithfulness/naopc",
    "faithfulness/soft_comprehensiveness",
    "faithfulness/soft_sufficiency",
    *_flips(""),
    *_flips("_random"),
)
#: What is measured by default: all but what is costly or only serves as a control (random rankings).
DEFAULT_MEASURES: tuple[str, ...] = tuple(
    name for name in MEASURES if name not in COSTLY_MEASURES and not name.endswith("_random")
)


def measure(
    network: AttentionNetwork,
    batch: Batch,
    names: Sequence[str] = DEFAULT_MEASURES,
    settings: Settings | None = None,
    scores: Tensor | None = None,
) -> tuple[dict[str, Tensor], AttentionOutput]:
    """Measure a batch: one forward pass, one gradient pass and one sweep, however many measures are named.

    Works inside any Lightning hook, in evaluation mode whatever mode the network is in.

    Args:
        network: Built network.
        batch: B examples.
        names: Keys of :data:`MEASURES`.
        settings: None means ``Settings()``; ``Settings(preset=PRESETS["mask_lrp"])`` measures as Mask-LRP does.
        scores: An attribution to be measured, shape ``(B, L)``, such as a method's ``attribute(network, batch)``; None
            measures the attention. ``attention/*``, ``permutation_tvd`` and ``adversarial_jsd`` are always of the
            attention.

    Returns:
        By name, one value per example, shape ``(B,)``, NaN where undefined: feed each to an ``ExampleMean`` with
        ``batch.index``. And what the network computed, for attention-based metrics of other kinds.

    Raises:
        InputError: A name is unknown.
    """
    if unknown := [name for name in names if name not in MEASURES]:
        raise InputError(f"There is no measure {unknown[0]!r}; the measures are {', '.join(MEASURES)}.")
    measurement = Measurement(network, batch, settings or Settings(), names, scores)
    with torch.no_grad(), evaluating(network):
        return {name: MEASURES[name](measurement) for name in names}, measurement.output
