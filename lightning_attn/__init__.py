"""Attention that means something: training, mitigation and faithfulness metrics on PyTorch Lightning."""
