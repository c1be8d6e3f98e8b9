"""Attention over sets: does it find the key instances? Run ``python -m benchmarks.sets``."""
