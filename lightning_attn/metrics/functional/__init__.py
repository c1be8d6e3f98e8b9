"""Metrics as pure functions on padded batches: one value an example, NaN where undefined."""

from lightning_attn.metrics.functional.adversarial import adversarial_jsd, jensen_shannon
from lightning_attn.metrics.functional.concentration import effective_tokens, entropy, max_attention, special_mass
from lightning_attn.metrics.functional.erasure import aopc, comprehensiveness, explained, log_odds, sufficiency
from lightning_attn.metrics.functional.kendall import kendall_tau, merge_close, significant
from lightning_attn.metrics.functional.leakage import Leakage, attention_features, leaked_bits
from lightning_attn.metrics.functional.permutation import permutation_tvd, permute, total_variation
from lightning_attn.metrics.functional.plausibility import auprc, auroc, span_matches, token_f1

__all__ = [
    "Leakage",
    "adversarial_jsd",
    "aopc",
    "attention_features",
    "auprc",
    "auroc",
    "comprehensiveness",
    "effective_tokens",
    "entropy",
    "explained",
    "jensen_shannon",
    "kendall_tau",
    "leaked_bits",
    "log_odds",
    "max_attention",
    "merge_close",
    "permutation_tvd",
    "permute",
    "significant",
    "span_matches",
    "special_mass",
    "sufficiency",
    "token_f1",
    "total_variation",
]
