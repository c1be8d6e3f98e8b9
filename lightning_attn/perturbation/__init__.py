"""The perturbation sweep: variants of the same examples, each distinct one run once, by a fast path if there is one."""

from lightning_attn.perturbation.budget import Budget, FlooredFractions, Fractions, Steps, WholeSteps
from lightning_attn.perturbation.removal import Removal, Reread
from lightning_attn.perturbation.sweep import (
    Delete,
    Overwrite,
    Pad,
    Perturbation,
    Replace,
    leave_one_out,
    output_change,
    probabilities,
    ranks,
    sweep,
    top_k_kept,
    top_k_removed,
    unperturbed,
)
from lightning_attn.perturbation.variants import KeyShortcut, Nodes, Variants

__all__ = [
    "Budget",
    "Delete",
    "FlooredFractions",
    "Fractions",
    "KeyShortcut",
    "Nodes",
    "Overwrite",
    "Pad",
    "Perturbation",
    "Removal",
    "Replace",
    "Reread",
    "Steps",
    "Variants",
    "WholeSteps",
    "leave_one_out",
    "output_change",
    "probabilities",
    "ranks",
    "sweep",
    "top_k_kept",
    "top_k_removed",
    "unperturbed",
]
