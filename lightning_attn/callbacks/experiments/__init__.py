"""The four experiments of "Attention is not Explanation" as callbacks, with their figures."""

from lightning_attn.callbacks.experiments.adversarial import AdversarialCallback, AdversarialRecord
from lightning_attn.callbacks.experiments.agreement import AgreementCallback, AgreementRecord
from lightning_attn.callbacks.experiments.base import ExperimentCallback
from lightning_attn.callbacks.experiments.counterfactual import (
    CounterfactualCallback,
    CounterfactualRecord,
    OtherCheckpoint,
)
from lightning_attn.callbacks.experiments.permutation import PermutationCallback, PermutationRecord
from lightning_attn.callbacks.experiments.record import ExperimentRecord

__all__ = [
    "AdversarialCallback",
    "AdversarialRecord",
    "AgreementCallback",
    "AgreementRecord",
    "CounterfactualCallback",
    "CounterfactualRecord",
    "ExperimentCallback",
    "ExperimentRecord",
    "OtherCheckpoint",
    "PermutationCallback",
    "PermutationRecord",
]
