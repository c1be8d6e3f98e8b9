"""Searches for adversarial attention: weights far from the learned ones that give the same output."""

from lightning_attn.metrics.adversarial.problem import Adversarial, AdversarialSolver
from lightning_attn.metrics.adversarial.published import PublishedSolver
from lightning_attn.metrics.adversarial.search import EdgeSolver

__all__ = [
    "Adversarial",
    "AdversarialSolver",
    "EdgeSolver",
    "PublishedSolver",
]
