"""The four experiments of "Attention is not Explanation": from a network and a batch to figures for each example."""

from lightning_attn.experiments.adversarial import (
    Adversarial,
    AdversarialSolver,
    EdgeSolver,
    PublishedSolver,
    adversarial,
)
from lightning_attn.experiments.adversarial_callback import AdversarialCallback, AdversarialRecord
from lightning_attn.experiments.agreement import Agreement, agreement
from lightning_attn.experiments.agreement_callback import AgreementCallback, AgreementRecord
from lightning_attn.experiments.base import ExperimentCallback
from lightning_attn.experiments.counterfactual import (
    AttentionSource,
    Counterfactual,
    Other,
    Random,
    Uniform,
    counterfactual,
)
from lightning_attn.experiments.counterfactual_callback import (
    CounterfactualCallback,
    CounterfactualRecord,
    OtherCheckpoint,
)
from lightning_attn.experiments.permutation import Permutation, permutation
from lightning_attn.experiments.permutation_callback import PermutationCallback, PermutationRecord
from lightning_attn.experiments.record import ExperimentRecord

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
