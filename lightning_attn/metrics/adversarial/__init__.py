"""Searches for adversarial attention: weights far from the learned ones that give the same output."""

from lightning_attn.metrics.adversarial.base import Adversarial, AdversarialSolver
from lightning_attn.metrics.adversarial.extreme import EdgeSolver
from lightning_attn.metrics.adversarial.published import PublishedSolver

__all__ = [
    "Adversarial",
    "AdversarialSolver",
    "EdgeSolver",
    "PublishedSolver",
]
