"""A batch under measurement: a forward pass, a gradient pass and a perturbation sweep, each when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lightning_attn.attribution.gradients import EmbeddingGradient, embedding_gradient
from lightning_attn.metrics.adversarial import AdversarialSolver
from lightning_attn.metrics.functional.kendall import KendallTau, kendall_tau, merge_close
from lightning_attn.metrics.functional.removal_orders import aopc_bounds
from lightning_attn.metrics.functional.soft_erasure import softly_kept, unit_scores
from lightning_attn.metrics.presets import Erasure, Preset, change
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.budget import Steps
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.perturbation.variants import leave_one_out, ranks, top_k_removed
from lightning_attn.types import AttentionOutput, Batch

#: Below this share of the largest score (for probabilities: below this) differences are rounding noise.
_NOISE = 1e-6
#: Removals, after that of one token, among which the first flip is looked for: every count of texts of up to 50 tokens.
_FLIP_STEPS = 50
#: Apart from the seeds of random rankings and of the permutations.
_SOFT_SEED = 1 << 40

#: What depends on the preset alone, besides ``kendall_loo``.
ERASURE = ("comprehensiveness", "sufficiency", "aopc", "log_odds")


def _request(measure: str) -> str:
    """AOPC and log-odds are made of the same answers."""
    return "curve" if measure in ("aopc", "log_odds") else measure


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
        beam_width: See :func:`lightning_attn.metrics.functional.removal_orders.aopc_bounds`, of ``naopc``.
        exact_tokens: ``exact`` there.
        soft_draws: Draws of what is kept of the embeddings, of ``soft_comprehensiveness`` and ``soft_sufficiency``.
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
    beam_width: int = 5
    exact_tokens: int = 8
    soft_draws: int = 4
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
        if self._asks("srg"):
            most_first, least_first = self.curves_both_ways
            requests |= {"most_first": most_first, "least_first": least_first}
        if self._asks("naopc"):
            requests["order"] = ~(
                (self.order_ranks[:, None] < self.order_counts[..., None]) & self.batch.inner[:, None]
            )
        return sweep(
            self.network, self.batch, requests, self.perturbation, self.settings.max_tokens, full=self.probabilities
        )

    @property
    def perturbation(self) -> Perturbation:
        """What happens to removed tokens."""
        return self.settings.perturbation or self.settings.preset.perturbation

    @property
    def order_ranks(self) -> Tensor:
        """Places in the order of removal, 0 for what goes first: one order, whatever a preset spares; ``(B, L)``."""
        return ranks(self.ranking.abs() if self.settings.preset.ranking == "absolute" else self.ranking, self.batch)

    @property
    def curves_both_ways(self) -> tuple[Tensor, Tensor]:
        """The perturbation curve in the order of removal, and in its reverse, each ``(B, K, L)``."""
        inner, rank = self.batch.inner[:, None], self.order_ranks[:, None]
        counts = self.settings.preset.curve.counts(self.batch)[..., None]
        return ~((rank < counts) & inner), ~((rank >= inner.sum(dim=-1, keepdim=True) - counts) & inner)

    @cached_property
    def order_counts(self) -> Tensor:
        """1, 2, ... of n - 1 tokens, the last repeated in shorter texts, shape ``(B, K)``."""
        n = self.batch.inner.sum(dim=-1, keepdim=True)
        steps = torch.arange(1, max(2, int(n.amax())) if len(n) else 2, device=n.device)
        return torch.minimum(steps, (n - 1).clamp(min=0))

    @property
    def order_aopc(self) -> Tensor:
        """Mean drop over the removals of 1 to n - 1 tokens in the order that is measured, shape ``(B,)``."""
        drops = change("signed_drop", self.probabilities, self.swept["order"], self.target)
        steps = torch.arange(1, drops.shape[1] + 1, device=drops.device)
        counted = steps < self.batch.inner.sum(dim=-1, keepdim=True)
        return drops.where(counted, 0.0).sum(dim=-1) / counted.sum(dim=-1)

    @property
    def order_bounds(self) -> tuple[Tensor, Tensor]:
        """The network's own worst and best order, by the same mean, shape ``(B,)`` each."""
        settings = self.settings
        return aopc_bounds(
            self.network,
            self.batch,
            self.target,
            self.probabilities,
            self.perturbation,
            settings.beam_width,
            settings.exact_tokens,
            settings.max_tokens,
        )

    @cached_property
    def softly(self) -> dict[str, Tensor]:
        """Probabilities of the explained class under draws of the embeddings, by what is done to them, ``(B, D)``."""
        shares = unit_scores(self.scores.float(), self.batch.inner)
        embeddings = self.network.embed(self.batch)
        outer = ~self.batch.inner[..., None]
        answers: dict[str, list[Tensor]] = {"kept": [], "removed": [], "empty": [self._explained(embeddings * outer)]}
        for draw in range(self.settings.soft_draws):
            seed = _SOFT_SEED + self.settings.seed * self.settings.soft_draws + draw
            kept = softly_kept(shares.nan_to_num(), self.batch, embeddings.shape[-1], seed)
            answers["kept"].append(self._explained(embeddings * (kept | outer)))
            answers["removed"].append(self._explained(embeddings * (~kept | outer)))
        undefined = shares.isnan().any(dim=-1)
        return {name: torch.stack(p, dim=1).masked_fill(undefined[:, None], torch.nan) for name, p in answers.items()}

    def _explained(self, embeddings: Tensor) -> Tensor:
        """Probability of the explained class with other embeddings, shape ``(B,)``."""
        logits = self.network(self.batch, embeddings=embeddings).logits.float()
        return self.network.schema.probabilities(logits).gather(-1, self.target[:, None]).squeeze(1)

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
