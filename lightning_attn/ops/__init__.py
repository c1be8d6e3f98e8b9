"""Tensor helpers that know of no network."""
