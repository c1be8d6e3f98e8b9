"""Searches for adversarial attention: weights far from the learned ones that give the same output."""

from lightning_attn.adversaries.base import Adversarial, AdversarialSolver
from lightning_attn.adversaries.extreme import EdgeSolver
from lightning_attn.adversaries.published import PublishedSolver

__all__ = ["Adversarial", "AdversarialSolver", "EdgeSolver", "PublishedSolver"]
