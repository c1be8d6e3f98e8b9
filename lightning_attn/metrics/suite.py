"""All per-example measures of a batch from one forward pass, one gradient pass and one perturbation sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from lightning_attn.attribution.gradients import EmbeddingGradient, embedding_gradient
from lightning_attn.errors import InputError
from lightning_attn.metrics.adversarial import AdversarialSolver
from lightning_attn.metrics.functional.alternatives import adversarial_jsd, permutation_tvd
from lightning_attn.metrics.functional.concentration import effective_tokens, entropy, max_attention, special_mass
from lightning_attn.metrics.functional.erasure import flip_first, flip_fraction
from lightning_attn.metrics.functional.kendall import KendallTau, kendall_tau, merge_close, significant
from lightning_attn.metrics.functional.plausibility import auprc, auroc, span_matches, token_f1
from lightning_attn.metrics.presets import Erasure, Preset, change
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.budget import Steps
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.perturbation.variants import leave_one_out, top_k_removed
from lightning_attn.types import AttentionOutput, Batch

#: Below this share of the largest score (for probabilities: below this) differences are rounding noise.
_NOISE = 1e-6
#: Removals, after that of one token, among which the first flip is looked for: every count of texts of up to 50 tokens.
_FLIP_STEPS = 50


@dataclass(frozen=True)
class Settings:
    """How a suite measures.

    Attributes:
        preset: How to measure what removing tokens does, see :data:`lightning_attn.metrics.presets.PRESETS`.
        perturbation: What happens to removed tokens; None leaves it to the preset.
        max_tokens: Positions, padding included, of what is held at a time: perturbed texts (see
            :func:`lightning_attn.perturbation.sweep.probabilities`), permutations and adversaries.
        attention_fixed: See :func:`lightning_attn.attribution.gradients.embedding_gradient`.
        permutations: See :func:`permutation_tvd`.
        solver: See :func:`adversarial_jsd`.
        evidence_fraction: See :func:`token_f1`.
        level: p-value up to which a tau counts as significant.
        seed: Of permutations and random rankings, together with ``Batch.index``.
    """

    preset: Preset = field(default_factory=Preset)
    perturbation: Perturbation | None = None
    max_tokens: int = 16384
    attention_fixed: bool = True
    permutations: int = 100
    solver: AdversarialSolver | None = None
    evidence_fraction: float | None = None
    level: float = 0.05
    seed: int = 0


class Measurement:
    """A batch under measurement: each pass runs when something first asks for it, and once.

    Args:
        network: Built network.
        batch: B examples.
        settings: How to measure.
        names: Every measure that will be asked for: it decides what the one sweep and the forward pass must provide.
        attributions: What is to be measured in place of the attention, shape ``(B, L)``.
    """

    def __init__(
        self,
        network: AttentionNetwork,
        batch: Batch,
        settings: Settings,
        names: Sequence[str],
        attributions: Tensor | None = None,
    ) -> None:
        self.network = network
        with torch.no_grad(), evaluating(network):
            self.batch = network.read_query(batch.padded())
        self.settings = settings
        self.names = tuple(names)
        self.attributions = attributions

    @cached_property
    def gradient(self) -> EmbeddingGradient:
        """The gradient pass."""
        return embedding_gradient(self.network, self.batch, attention_fixed=self.settings.attention_fixed)

    @cached_property
    def output(self) -> AttentionOutput:
        """The forward pass, that of the gradient where one is needed anyway."""
        # An accelerator may run the gradient pass with other kernels than the perturbed texts, and what these are
        # compared with must be computed as they are.
        if self.batch.device.type == "cpu" and any("kendall_gradient" in name for name in self.names):
            return self.gradient.output
        with torch.no_grad(), evaluating(self.network):
            return self.network(self.batch)  # type: ignore[no-any-return]

    @cached_property
    def probabilities(self) -> Tensor:
        """Class probabilities of the unperturbed batch, shape ``(B, C)``."""
        return self.network.schema.probabilities(self.output.logits.float())

    @cached_property
    def target(self) -> Tensor:
        """The explained class, kept for all perturbations, shape ``(B,)``."""
        return self.settings.preset.target(self.output.logits, self.batch)

    @property
    def scores(self) -> Tensor:
        """What is measured: the attention, or :attr:`attributions`, shape ``(B, L)``."""
        return self.output.attention if self.attributions is None else self.attributions

    @cached_property
    def ranking(self) -> Tensor:
        """The scores for ranking, of the right sign, 0 on special positions and padding, shape ``(B, L)``."""
        if self.attributions is not None:
            return self.attributions.masked_fill(~self.batch.inner, 0.0)
        positive = self.batch.inner & (self.output.attention > 0)
        return torch.where(positive, self.tied_ranks + 1, 0.0)

    @cached_property
    def tied_ranks(self) -> Tensor:
        """What correlations compare: ranks of the attention from 0, rounding noise tied, or :attr:`attributions`.

        Shape ``(B, L)``.
        """
        if self.attributions is not None:
            return self.attributions
        weights = self.output.attention
        # The noise of a softmax is relative to each weight, however small, hence the logarithm.
        return self.denoised(weights.clamp_min(torch.finfo(weights.dtype).tiny).log(), 10 * _NOISE)

    def denoised(self, scores: Tensor, tolerance: Tensor | float) -> Tensor:
        """Scores for ranking in which differences of rounding noise are ties."""
        return merge_close(scores, self.batch.inner, tolerance)

    @cached_property
    def swept(self) -> dict[str, Tensor]:
        """The sweep: by request, probabilities ``(B, V, C)``."""
        requests: dict[str, Tensor] = {}
        if any("kendall_loo" in name for name in self.names):
            requests["loo"] = leave_one_out(self.batch)
        for suffix, ranking in (("", self.ranking), ("_random", self.chance)):
            for measure in ERASURE:
                if self._asks(measure + suffix):
                    requests[_request(measure) + suffix] = self.erasures[suffix].request(measure)
            if self._asks("flip_fraction" + suffix) or self._asks("flip_first" + suffix):
                requests["flips" + suffix] = top_k_removed(ranking, self.batch, self.flip_counts)
        settings = self.settings
        perturbation = settings.perturbation or settings.preset.perturbation
        return sweep(self.network, self.batch, requests, perturbation, settings.max_tokens, full=self.probabilities)

    @cached_property
    def flip_counts(self) -> Tensor:
        """Numbers of tokens removed in search of a flip, shape ``(B, K)``."""
        steps = Steps(_FLIP_STEPS).counts(self.batch)
        return torch.cat([steps.amax(dim=-1, keepdim=True).clamp(max=1), steps], dim=-1)

    def _asks(self, measure: str) -> bool:
        return f"faithfulness/{measure}" in self.names

    @property
    def rankable(self) -> Tensor:
        """Where there are two tokens or more, of which one can matter more than another; shape ``(B,)``, bool."""
        return self.batch.inner.sum(dim=-1) > 1

    @cached_property
    def chance(self) -> Tensor:
        """A random ranking, shape ``(B, L)``."""
        drawn = uniform(self.batch.index, self.batch.valid.shape[1], self.settings.seed)
        return drawn.masked_fill(~self.batch.inner, 0.0)

    @cached_property
    def erasures(self) -> dict[str, Erasure]:
        """What is removed under the ranking that is measured, and under a random one."""
        preset = self.settings.preset
        return {
            "": Erasure(preset, self.batch, self.ranking),
            "_random": Erasure(preset, self.batch, self.chance),
        }

    def erasure(self, measure: str, suffix: str) -> Tensor:
        """One of :data:`ERASURE` under one of :attr:`erasures`, shape ``(B,)``."""
        perturbed = self.swept[_request(measure) + suffix]
        return self.erasures[suffix].value(measure, self.probabilities, perturbed, self.target)

    @cached_property
    def gradient_scores(self) -> Tensor:
        """abs(gradient x embedding) of each position, rounding noise merged: for ranking only, shape ``(B, L)``."""
        scores = self.gradient.product.abs()
        return self.denoised(scores, _NOISE * scores.amax(dim=-1, keepdim=True))

    @cached_property
    def loo_scores(self) -> Tensor:
        """Output change without each position, rounding noise merged: for ranking only, shape ``(B, L)``."""
        effect = change(self.settings.preset.leave_one_out, self.probabilities, self.swept["loo"], self.target)
        return self.denoised(effect, _NOISE)

    @cached_property
    def tau_gradient(self) -> KendallTau:
        """Attention against gradient x embedding."""
        return kendall_tau(self.tied_ranks, self.gradient_scores, self.batch.inner)

    @cached_property
    def tau_loo(self) -> KendallTau:
        """Attention against leave-one-out."""
        return kendall_tau(self.tied_ranks, self.loo_scores, self.batch.inner)

    @property
    def evidence(self) -> Tensor:
        """The evidence, all unknown if the data have none, shape ``(B, L)``."""
        if self.batch.evidence is None:
            return torch.full_like(self.output.attention, torch.nan)
        return self.batch.evidence


#: What depends on the preset alone, besides ``kendall_loo``.
ERASURE = ("comprehensiveness", "sufficiency", "aopc", "log_odds")


def _request(measure: str) -> str:
    """AOPC and log-odds are made of the same answers."""
    return "curve" if measure in ("aopc", "log_odds") else measure


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
COSTLY_MEASURES: tuple[str, ...] = ("faithfulness/adversarial_jsd", *_flips(""), *_flips("_random"))
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
