"""The four experiments of "Attention is not Explanation", and ensembles: from a network and a batch to figures."""

from lightning_attn.experiments.adversarial import AdversarialCallback, AdversarialRecord, adversarial
from lightning_attn.experiments.agreement import Agreement, AgreementCallback, AgreementRecord, agreement
from lightning_attn.experiments.base import ExperimentCallback
from lightning_attn.experiments.counterfactual import (
    AttentionSource,
    Counterfactual,
    CounterfactualCallback,
    CounterfactualRecord,
    Other,
    OtherCheckpoint,
    Random,
    Uniform,
    counterfactual,
)
from lightning_attn.experiments.disagreement import DisagreementCallback, DisagreementRecord
from lightning_attn.experiments.permutation import Permutation, PermutationCallback, PermutationRecord, permutation
from lightning_attn.experiments.record import ExperimentRecord
from lightning_attn.metrics.adversarial import Adversarial, AdversarialSolver, EdgeSolver, PublishedSolver

__all__ = [
    "Adversarial",
    "AdversarialCallback",
    "AdversarialRecord",
    "AdversarialSolver",
    "Agreement",
    "AgreementCallback",
    "AgreementRecord",
    "AttentionSource",
    "Counterfactual",
    "CounterfactualCallback",
    "CounterfactualRecord",
    "DisagreementCallback",
    "DisagreementRecord",
    "EdgeSolver",
    "ExperimentCallback",
    "ExperimentRecord",
    "Other",
    "OtherCheckpoint",
    "Permutation",
    "PermutationCallback",
    "PermutationRecord",
    "PublishedSolver",
    "Random",
    "Uniform",
    "adversarial",
    "agreement",
    "counterfactual",
    "permutation",
]
