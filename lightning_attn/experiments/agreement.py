"""Does attention rank the tokens as gradients do, and as leave-one-out does?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.experiments.forward import by_parts
from lightning_attn.metrics.functional.kendall import kendall_tau, merge_close
from lightning_attn.metrics.suite import Measurement, Settings
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.perturbation.sweep import Perturbation, ranks
from lightning_attn.types import Batch


@dataclass
class Agreement:
    """How alike attention, gradients and leave-one-out are in each example; every tensor has shape ``(B,)``.

    Attributes:
        gradient: Kendall's tau-b of attention and gradient x embedding, in [-1, 1]; NaN where undefined, that is with
            fewer than two positions or if one side is constant.
        loo: The same of attention and leave-one-out.
        gradient_loo: The same of gradient x embedding and leave-one-out: what two measures of importance that do not
            look at attention have in common, the yardstick of the other two.
        gradient_p: Two-sided p-value of ``gradient``; NaN where that is.
        loo_p: Two-sided p-value of ``loo``.
        gradient_loo_p: Two-sided p-value of ``gradient_loo``.
        gradient_top: Share of the k best-ranked positions that attention and gradients have in common, in [0, 1]; NaN
            with fewer than two positions.
        loo_top: The same of attention and leave-one-out.
        gradient_loo_top: The same of gradients and leave-one-out.
        gradient_without_attention: Tau of attention ``a`` and gradient x embedding divided by ``a_i``. With local
            values and the attention held fixed, ``a_i`` is a factor of the gradient it is compared with; this is the
            agreement without that.
    """

    gradient: Tensor
    loo: Tensor
    gradient_loo: Tensor
    gradient_p: Tensor
    loo_p: Tensor
    gradient_loo_p: Tensor
    gradient_top: Tensor
    loo_top: Tensor
    gradient_loo_top: Tensor
    gradient_without_attention: Tensor


def agreement(
    network: AttentionNetwork,
    batch: Batch,
    *,
    attention_fixed: bool = True,
    top_k: int = 5,
    perturbation: Perturbation | None = None,
    max_tokens: int = 16384,
) -> Agreement:
    """Compare the rankings of tokens by attention, by gradients and by leave-one-out.

    Args:
        network: Built network.
        batch: B examples.
        attention_fixed: Whether the gradient leaves the path through the scorer out, as published.
        top_k: Positions whose overlap is reported, at least 1; n - 1 of a text of only n positions, because all n are
            in common always. Ties rank by position.
        perturbation: What leave-one-out does with the token; None means ``Delete()``.
        max_tokens: Positions, padding included, of the texts read at a time.

    Raises:
        InputError: ``top_k`` or ``max_tokens`` is below 1.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.1. The overlap and the control are
    ours.
    """
    if top_k < 1:
        raise InputError(f"The agreement of the best-ranked positions needs a top_k of at least 1, not {top_k}.")
    settings = Settings(perturbation=perturbation, max_tokens=max_tokens, attention_fixed=attention_fixed)
    return by_parts(lambda part: _measure(network, part, settings, top_k), batch, max_tokens)


def _measure(network: AttentionNetwork, batch: Batch, settings: Settings, top_k: int) -> Agreement:
    found = Measurement(network, batch, settings, ("faithfulness/kendall_gradient", "faithfulness/kendall_loo"))
    attention, gradient, loo = found.attention, found.gradient_scores, found.loo_scores
    by_gradient, by_loo, yardstick = found.tau_gradient, found.tau_loo, kendall_tau(gradient, loo, batch.inner)
    return Agreement(
        gradient=by_gradient.tau,
        loo=by_loo.tau,
        gradient_loo=yardstick.tau,
        gradient_p=by_gradient.p_value,
        loo_p=by_loo.p_value,
        gradient_loo_p=yardstick.p_value,
        gradient_top=top_overlap(attention, gradient, batch, top_k),
        loo_top=top_overlap(attention, loo, batch, top_k),
        gradient_loo_top=top_overlap(gradient, loo, batch, top_k),
        gradient_without_attention=_without_attention(found),
    )


def top_overlap(x: Tensor, y: Tensor, batch: Batch, k: int) -> Tensor:
    """Share of the ``min(k, n - 1)`` best-ranked positions that two rankings have in common.

    Args:
        x: Scores, shape ``(B, L)``.
        y: Other scores, shape ``(B, L)``.
        batch: Says which n positions are ranked.
        k: At least 1.

    Returns:
        Shape ``(B,)``, float64, in [0, 1]; NaN where n < 2.
    """
    n = batch.inner.sum(dim=-1)
    size = (n - 1).clamp(max=k)
    both = (ranks(x, batch) < size[:, None]) & (ranks(y, batch) < size[:, None])
    return (both.sum(dim=-1).double() / size).masked_fill(n < 2, torch.nan)


def _without_attention(found: Measurement) -> Tensor:
    """Tau of the attention and the gradient scores divided by it, shape ``(B,)``."""
    weights = found.output.attention
    # A weight that underflows took its gradient along: nothing can be said of such a position.
    tiny = torch.finfo(weights.dtype).tiny
    known = found.batch.inner & (weights >= tiny)
    ratio = found.gradient.product.abs().clamp_min(tiny).log() - weights.clamp_min(tiny).log()
    return kendall_tau(found.attention, merge_close(ratio, known, 1e-5), known).tau
