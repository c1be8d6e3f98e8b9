"""Metrics as pure functions on padded batches: one value per example, NaN where undefined."""

from lightning_attn.metrics.functional.alternatives import adversarial_jsd, permutation_tvd, permute
from lightning_attn.metrics.functional.concentration import effective_tokens, entropy, max_attention, special_mass
from lightning_attn.metrics.functional.disagreement import (
    RiskCoverage,
    member_deviation,
    pairwise_jsd,
    pairwise_rank_correlation,
    pairwise_top_overlap,
    risk_coverage,
)
from lightning_attn.metrics.functional.erasure import (
    aopc,
    comprehensiveness,
    explained,
    flip_first,
    flip_fraction,
    log_odds,
    sufficiency,
)
from lightning_attn.metrics.functional.instances import (
    INSTANCE_MEASURES,
    aopc_r,
    instance_measures,
    log_weights,
    ranked_measures,
)
from lightning_attn.metrics.functional.kendall import kendall_tau, merge_close, significant
from lightning_attn.metrics.functional.leakage import Leakage, attention_features, leaked_bits
from lightning_attn.metrics.functional.plausibility import answer_recall, auprc, auroc, span_matches, token_f1
from lightning_attn.metrics.functional.removal_orders import aopc_bounds, naopc, srg
from lightning_attn.metrics.functional.soft_erasure import soft_comprehensiveness, soft_sufficiency
from lightning_attn.ops.divergence import jensen_shannon, total_variation

__all__ = [
    "INSTANCE_MEASURES",
    "Leakage",
    "RiskCoverage",
    "adversarial_jsd",
    "answer_recall",
    "aopc",
    "aopc_bounds",
    "aopc_r",
    "attention_features",
    "auprc",
    "auroc",
    "comprehensiveness",
    "effective_tokens",
    "entropy",
    "explained",
    "flip_first",
    "flip_fraction",
    "instance_measures",
    "jensen_shannon",
    "kendall_tau",
    "leaked_bits",
    "log_odds",
    "log_weights",
    "max_attention",
    "member_deviation",
    "merge_close",
    "naopc",
    "pairwise_jsd",
    "pairwise_rank_correlation",
    "pairwise_top_overlap",
    "permutation_tvd",
    "permute",
    "ranked_measures",
    "risk_coverage",
    "significant",
    "soft_comprehensiveness",
    "soft_sufficiency",
    "span_matches",
    "special_mass",
    "srg",
    "sufficiency",
    "token_f1",
    "total_variation",
]
