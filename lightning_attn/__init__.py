"""Attention that means something: mitigations, faithfulness metrics and callbacks on PyTorch Lightning."""

__version__ = "0.1.0"
