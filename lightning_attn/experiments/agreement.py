"""Does attention rank tokens as gradients do, and as leave-one-out does? `agreement`, `AgreementCallback`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.experiments import figures
from lightning_attn.experiments.base import ExperimentCallback, by_parts
from lightning_attn.experiments.record import ExperimentRecord, Summary, deviation, mean, share, undefined
from lightning_attn.metrics.functional.kendall import kendall_tau, merge_close
from lightning_attn.metrics.measurement import Measurement, Settings
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.perturbation.variants import ranks
from lightning_attn.types import Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure

_LEVEL = 0.05
#: By the start of the names, what is compared.
_PAIRS = {
    "gradient": "attention and gradients",
    "loo": "attention and leave-one-out",
    "gradient_loo": "gradients and leave-one-out",
}
#: By the end of the names, what is said of it.
_MEASURES = {
    "tau": "tau",
    "tau_sd": "its deviation",
    "significant": f"share of p ≤ {_LEVEL}",
    "top": "best-ranked in common",
    "undefined": "undefined",
}


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
    measurement = Measurement(network, batch, settings, ("faithfulness/kendall_gradient", "faithfulness/kendall_loo"))
    attention, gradient, loo = measurement.tied_ranks, measurement.gradient_scores, measurement.loo_scores
    by_gradient, by_loo = measurement.tau_gradient, measurement.tau_loo
    yardstick = kendall_tau(gradient, loo, batch.inner)
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
        gradient_without_attention=_without_attention(measurement),
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


def _without_attention(measurement: Measurement) -> Tensor:
    """Tau of the attention and the gradient scores divided by it, shape ``(B,)``."""
    weights = measurement.output.attention
    # A weight that underflows took its gradient along: nothing can be said of such a position.
    tiny = torch.finfo(weights.dtype).tiny
    nonzero = measurement.batch.inner & (weights >= tiny)
    ratio = measurement.gradient.product.abs().clamp_min(tiny).log() - weights.clamp_min(tiny).log()
    return kendall_tau(measurement.tied_ranks, merge_close(ratio, nonzero, 1e-5), nonzero).tau


class AgreementRecord(ExperimentRecord):
    """Kendall's tau and the overlap of the best-ranked tokens, of each example and of all."""

    name = "agreement"
    title = "Agreement of the rankings of tokens"
    headlines: ClassVar[tuple[str, ...]] = tuple(f"{pair}_tau" for pair in _PAIRS)
    words: ClassVar[Mapping[str, str]] = {
        f"{pair}_{name}": f"{words}: {measure}"
        for pair, words in {**_PAIRS, "gradient_without_attention": "attention and gradients / attention"}.items()
        for name, measure in _MEASURES.items()
    }

    def summary(self) -> Summary:
        """Mean and deviation of each tau, share of significant ones, mean overlap, and how many are undefined."""
        summary: Summary = {}
        for pair in (*_PAIRS, "gradient_without_attention"):
            tau = self.values[f"{pair}_tau"]
            summary |= {f"{pair}_tau": mean(tau), f"{pair}_tau_sd": deviation(tau)}
            if pair in _PAIRS:
                p = self.values[f"{pair}_p"]
                summary[f"{pair}_significant"] = share(p, p <= _LEVEL)
                summary[f"{pair}_top"] = mean(self.values[f"{pair}_top"])
            summary[f"{pair}_undefined"] = undefined(tau)
        return summary

    def figures(self) -> dict[str, Figure]:
        """``agreement``: a histogram of tau by class for each pair, as figure 2 of Jain and Wallace."""
        summary = self.summary()
        with figures.canvas(self, len(_PAIRS)) as (figure, panels):
            for axes, (pair, title) in zip(panels, _PAIRS.items(), strict=True):
                middle, spread = summary[f"{pair}_tau"], summary[f"{pair}_tau_sd"]
                if middle is None or spread is None:
                    note = ""
                else:
                    note = f"mean {middle:.2f}, sd {spread:.2f}; p ≤ {_LEVEL}: {summary[f'{pair}_significant']:.0%}"
                figures.histogram(axes, self, f"{pair}_tau", "Kendall's tau", (-1, 1), title, note)
            figures.legend(figure, self, "mean")
        return {self.name: figure}


class AgreementCallback(ExperimentCallback[AgreementRecord]):
    """Compares the rankings of tokens by attention, by gradients and by leave-one-out, with each other.

    Logs, under ``test/explanation/agreement/``, for ``gradient`` (attention and gradients), ``loo`` (attention and
    leave-one-out) and ``gradient_loo`` (the two that do not look at attention: the yardstick) ``_tau``, ``_tau_sd``,
    ``_significant`` (share of p <= 0.05; it grows with the length of the texts), ``_top`` (share of the best-ranked
    tokens in common) and ``_undefined`` (examples that the others leave out: one token, or constant on one side). And
    ``gradient_without_attention_tau``: with local values and the attention held fixed the weight is a factor of the
    gradient that it is compared with, and this is the tau without that factor.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.1; the overlap and the control
    are ours.

    Args:
        attention_fixed: Whether the gradient leaves out the path through the scorer, as published.
        top_k: How many of the best-ranked tokens are compared, at least 1.
        perturbation: What leave-one-out does with the token; None means ``Delete()``.
        **settings: Of :class:`ExperimentCallback`; ``seed`` is of the sample.

    Raises:
        InputError: A number is below 1, or a split unknown.
    """

    record = AgreementRecord

    def __init__(
        self,
        attention_fixed: bool = True,
        top_k: int = 5,
        perturbation: Perturbation | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._at_least_one(top_k=top_k)
        self.attention_fixed = attention_fixed
        self.top_k = top_k
        self.perturbation = perturbation

    @property
    @override
    def settings(self) -> dict[str, Any]:
        kind = "Delete" if self.perturbation is None else type(self.perturbation).__name__
        return {"attention_fixed": self.attention_fixed, "top_k": self.top_k, "perturbation": kind, "level": _LEVEL}

    @override
    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        result = agreement(
            network,
            batch,
            attention_fixed=self.attention_fixed,
            top_k=self.top_k,
            perturbation=self.perturbation,
            max_tokens=self.max_tokens,
        )
        columns = {"gradient_without_attention_tau": result.gradient_without_attention}
        for pair in _PAIRS:
            columns[f"{pair}_tau"] = getattr(result, pair)
            columns[f"{pair}_p"] = getattr(result, f"{pair}_p")
            columns[f"{pair}_top"] = getattr(result, f"{pair}_top")
        return columns
