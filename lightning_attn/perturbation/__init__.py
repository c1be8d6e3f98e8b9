"""The perturbation sweep: variants of the same examples, each distinct one run once, by a fast path if there is one."""

from lightning_attn.perturbation.budget import Budget, FlooredFractions, Fractions, Steps, WholeSteps
from lightning_attn.perturbation.fast_path import encoder_fast_path, network_fast_path, variant_reader
from lightning_attn.perturbation.keys import KeyFastPath, LocalKeys, SharedVectors, Variants
from lightning_attn.perturbation.perturbations import Delete, Overwrite, Pad, Perturbation, Replace
from lightning_attn.perturbation.reader import FullReader, VariantReader, inherits_unchanged
from lightning_attn.perturbation.sweep import output_change, probabilities, sweep
from lightning_attn.perturbation.variants import leave_one_out, ranks, top_k_kept, top_k_removed, unperturbed

__all__ = [
    "Budget",
    "Delete",
    "FlooredFractions",
    "Fractions",
    "FullReader",
    "KeyFastPath",
    "LocalKeys",
    "Overwrite",
    "Pad",
    "Perturbation",
    "Replace",
    "SharedVectors",
    "Steps",
    "VariantReader",
    "Variants",
    "WholeSteps",
    "encoder_fast_path",
    "inherits_unchanged",
    "leave_one_out",
    "network_fast_path",
    "output_change",
    "probabilities",
    "ranks",
    "sweep",
    "top_k_kept",
    "top_k_removed",
    "unperturbed",
    "variant_reader",
]
