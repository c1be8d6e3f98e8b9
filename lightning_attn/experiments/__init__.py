"""The four experiments of "Attention is not Explanation": from a network and a batch to figures for each example."""

from lightning_attn.experiments.adversarial import (
    Adversarial,
    AdversarialSolver,
    EdgeSolver,
    PublishedSolver,
    adversarial,
)
from lightning_attn.experiments.agreement import Agreement, agreement
from lightning_attn.experiments.counterfactual import (
    AttentionSource,
    Counterfactual,
    Other,
    Random,
    Uniform,
    counterfactual,
)
from lightning_attn.experiments.permutation import Permutation, permutation

__all__ = [
    "Adversarial",
    "AdversarialSolver",
    "Agreement",
    "AttentionSource",
    "Counterfactual",
    "EdgeSolver",
    "Other",
    "Permutation",
    "PublishedSolver",
    "Random",
    "Uniform",
    "adversarial",
    "agreement",
    "counterfactual",
    "permutation",
]
